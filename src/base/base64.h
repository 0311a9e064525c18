// Base64 with padding (RFC 4648, section 4), as JSON carries files.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace pensieve {

/// Whether `text` is base64: full quartets, "=" at the end only, no white space, and at least one
/// byte of content. Bits that no byte needs must be zero, so that one file has one spelling.
bool is_base64(std::string_view text);

/// Bytes that a text of `characters` characters stands for, at most.
constexpr std::size_t base64_bytes_max(std::size_t characters) {
  return characters / 4 * 3;
}

/// The bytes; empty where `text` is no base64.
std::optional<std::string> from_base64(std::string_view text);

std::string to_base64(std::string_view bytes);

}  // namespace pensieve
