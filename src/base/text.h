// What is done to plain text everywhere. Pure.
#pragma once

#include <cstddef>
#include <string_view>

namespace pensieve {

inline constexpr std::string_view kTextSpaces = " \t\r\n";

/// `text` without the `spaces` at its ends.
inline std::string_view trimmed(std::string_view text, std::string_view spaces = kTextSpaces) {
  const std::size_t first = text.find_first_not_of(spaces);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(spaces) - first + 1);
}

}  // namespace pensieve
