// Numbers for pieces of text: the vocabulary of the scripted engine, made as it is met.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace pensieve::engine {

/// Gives each different piece an id, counted from 0, for as long as the table lives.
///
/// Thread-safety: all functions may be called from any thread.
class PieceTable {
 public:
  explicit PieceTable(std::size_t pieces_max) : pieces_max_(pieces_max) {}

  /// Empty: the table is full and `piece` is not in it.
  std::optional<std::uint32_t> try_intern(std::string_view piece);

  std::size_t size() const;

  /// Appends the piece with `id`, or nothing where there is none.
  void append(std::uint32_t id, std::string& out) const;

 private:
  const std::size_t pieces_max_;
  mutable std::mutex mutex_;
  std::deque<std::string> pieces_;  // Its elements do not move: ids_ points into them.
  std::unordered_map<std::string_view, std::uint32_t> ids_;
};

}  // namespace pensieve::engine
