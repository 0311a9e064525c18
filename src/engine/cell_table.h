// The cells of a unified KV cache, without the KV: who holds which, and how many are free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pensieve::engine {

/// A cell is one token's place. Sequences that share a prefix hold the same cells, which count
/// once. Sequences are named by their index.
class CellTable {
 public:
  CellTable() = default;
  CellTable(std::size_t cells, std::size_t sequences);

  std::size_t size() const { return users_.size(); }
  std::size_t free_count() const { return free_.size(); }

  /// Cells that any of `sequences` holds; a shared one counts once.
  std::size_t held_by(std::span<const std::uint32_t> sequences) const;

  /// Makes it a table of `cells` cells in which all hold and share what they did.
  /// REQUIRES: no more than `cells` are held.
  void resize(std::size_t cells);

  /// `sequence` gets free cells until it holds `tokens`. REQUIRES: enough are free.
  void extend(std::size_t sequence, std::size_t tokens);

  /// `sequence` gives back its cells after the first `tokens`.
  void keep(std::size_t sequence, std::size_t tokens);

  /// `to` holds the first `tokens` cells of `from`, and nothing else. REQUIRES: they differ.
  void share(std::size_t from, std::size_t to, std::size_t tokens);

 private:
  std::vector<std::uint32_t> users_;  // Per cell: the sequences that hold it.
  std::vector<std::uint32_t> free_;
  std::vector<std::vector<std::uint32_t>> held_;  // Per sequence, in the order of its tokens.
};

}  // namespace pensieve::engine
