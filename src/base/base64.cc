#include "base/base64.h"

#include <array>
#include <cstdint>

namespace pensieve {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t kNone = 0xFF;

constexpr std::array<std::uint8_t, 256> values() {
  std::array<std::uint8_t, 256> table{};
  table.fill(kNone);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    table[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::uint8_t>(i);
  }
  return table;
}
constexpr std::array<std::uint8_t, 256> kValues = values();

std::uint8_t value_of(char c) {
  return kValues[static_cast<unsigned char>(c)];
}

std::size_t padding_of(std::string_view text) {
  if (!text.ends_with('=')) return 0;
  return text.ends_with("==") ? 2 : 1;
}

}  // namespace

bool is_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return false;
  const std::size_t padding = padding_of(text);
  const std::string_view digits = text.substr(0, text.size() - padding);
  // One pass without a branch per character: images are most of a request that has them.
  std::uint8_t seen = 0;
  for (const char c : digits) seen |= value_of(c);
  if (seen > 63) return false;
  const std::uint8_t last = value_of(digits.back());
  return padding == 0 || (last & (padding == 1 ? 0x03U : 0x0FU)) == 0;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (!is_base64(text)) return std::nullopt;
  const std::size_t padding = padding_of(text);
  std::string bytes;
  bytes.reserve(base64_bytes_max(text.size()));
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      group = group << 6 | (text[i + j] == '=' ? 0U : value_of(text[i + j]));
    }
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(group >> shift & 0xFFU);
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

std::string to_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      const bool is_there = i + j < bytes.size();
      group = group << 8 | (is_there ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    }
    for (const int shift : {18, 12, 6, 0}) text += kAlphabet[group >> shift & 63U];
  }
  const std::size_t rest = bytes.size() % 3;
  if (rest > 0) text.replace(text.size() - (3 - rest), 3 - rest, 3 - rest, '=');
  return text;
}

}  // namespace pensieve
