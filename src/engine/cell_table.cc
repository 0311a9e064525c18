#include "engine/cell_table.h"

#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"

namespace pensieve::engine {

CellTable::CellTable(std::size_t cells, std::size_t sequences)
    : users_(cells), free_(cells), held_(sequences) {
  std::iota(free_.begin(), free_.end(), 0U);
}

void CellTable::extend(std::size_t sequence, std::size_t tokens) {
  std::vector<std::uint32_t>& held = held_[sequence];
  while (held.size() < tokens) {
    PENSIEVE_CHECK(!free_.empty());
    held.push_back(free_.back());
    free_.pop_back();
    users_[held.back()] = 1;
  }
}

void CellTable::keep(std::size_t sequence, std::size_t tokens) {
  std::vector<std::uint32_t>& held = held_[sequence];
  while (held.size() > tokens) {
    if (--users_[held.back()] == 0) free_.push_back(held.back());
    held.pop_back();
  }
}

void CellTable::share(std::size_t from, std::size_t to, std::size_t tokens) {
  PENSIEVE_CHECK(from != to && tokens <= held_[from].size());
  keep(to, 0);
  for (std::size_t i = 0; i < tokens; ++i) {
    held_[to].push_back(held_[from][i]);
    ++users_[held_[from][i]];
  }
}

std::size_t CellTable::held_by(std::span<const std::uint32_t> sequences) const {
  std::vector<bool> seen(users_.size());
  std::size_t count = 0;
  for (const std::uint32_t sequence : sequences) {
    for (const std::uint32_t cell : held_.at(sequence)) {
      count += seen[cell] ? 0 : 1;
      seen[cell] = true;
    }
  }
  return count;
}

void CellTable::resize(std::size_t cells) {
  PENSIEVE_CHECK(size() - free_count() <= cells);
  CellTable resized(cells, held_.size());
  std::vector<std::optional<std::uint32_t>> new_places(users_.size());
  for (std::size_t sequence = 0; sequence < held_.size(); ++sequence) {
    for (const std::uint32_t cell : held_[sequence]) {
      if (!new_places[cell]) {
        new_places[cell] = resized.free_.back();
        resized.free_.pop_back();
      }
      resized.held_[sequence].push_back(*new_places[cell]);
      ++resized.users_[*new_places[cell]];
    }
  }
  *this = std::move(resized);
}

}  // namespace pensieve::engine
