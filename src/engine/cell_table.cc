#include "engine/cell_table.h"

#include <numeric>

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

}  // namespace pensieve::engine
