// Which of the known words someone may have meant.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace pensieve::config {

/// How many insertions, deletions, replacements or swaps of neighbours make `a` into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The known word with the least distance to `word`, where it is at most a third of the word's
/// length (so that a suggestion looks like a typing mistake). The first of equals.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> known);

}  // namespace pensieve::config
