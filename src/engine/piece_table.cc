#include "engine/piece_table.h"

namespace pensieve::engine {

std::optional<std::uint32_t> PieceTable::try_intern(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  if (const auto found = ids_.find(piece); found != ids_.end()) return found->second;
  if (pieces_.size() >= pieces_max_) return std::nullopt;
  const auto id = static_cast<std::uint32_t>(pieces_.size());
  ids_.emplace(pieces_.emplace_back(piece), id);
  return id;
}

std::size_t PieceTable::size() const {
  const std::lock_guard lock(mutex_);
  return pieces_.size();
}

void PieceTable::append(std::uint32_t id, std::string& out) const {
  const std::lock_guard lock(mutex_);
  if (id < pieces_.size()) out += pieces_[id];
}

}  // namespace pensieve::engine
