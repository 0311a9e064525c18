// Pieces of the small texts that /proc and cgroup files hold. Pure; strict: what is not exactly
// of the expected form is nothing, never a part of a number.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>

namespace pensieve::memory {

/// A decimal number and nothing else. Empty for "", "+1", " 1", "1x" and what exceeds 64 bits.
inline std::optional<std::uint64_t> parse_count(std::string_view digits) {
  std::uint64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stopped_at, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || stopped_at != end) return std::nullopt;
  return value;
}

/// Cuts the first line off `text`, without its newline. Empty once no complete line is left: a
/// line without a newline was cut short, and half a number must not pass for a number.
inline std::optional<std::string_view> next_line(std::string_view& text) {
  const std::size_t length = text.find('\n');
  if (length == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, length);
  text.remove_prefix(length + 1);
  return line;
}

/// The rest of the first complete line that starts with `key`.
inline std::optional<std::string_view> line_after(std::string_view text, std::string_view key) {
  while (const std::optional<std::string_view> line = next_line(text)) {
    if (line->starts_with(key)) return line->substr(key.size());
  }
  return std::nullopt;
}

/// Cuts the next word off `text`; words are separated by `separator`. Empty at the end.
inline std::string_view next_word(std::string_view& text, char separator = ' ') {
  while (!text.empty() && text.front() == separator) text.remove_prefix(1);
  const std::string_view word = text.substr(0, text.find(separator));
  text.remove_prefix(word.size());
  return word;
}

}  // namespace pensieve::memory
