#include "worker/text_filter.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/error.h"

namespace pensieve::worker {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Length of the character that `lead` begins, and the range of its second byte (RFC 3629 §4).
struct Lead {
  std::size_t length = 0;  // 0: not a lead byte.
  std::uint8_t second_min = 0x80;
  std::uint8_t second_max = 0xBF;
};

Lead lead_of(std::uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte >= 0xC2 && byte <= 0xDF) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};  // No surrogates.
  if (byte >= 0xE1 && byte <= 0xEF) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {};
}

/// How many bytes at `at` belong together, and whether they are whole, cut off, or invalid.
struct Character {
  enum class Kind : std::uint8_t { kWhole, kCutOff, kInvalid } kind;
  std::size_t length;
};

Character character_at(std::string_view text, std::size_t at) {
  using Kind = Character::Kind;
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[at + i]); };
  const Lead lead = lead_of(byte(0));
  if (lead.length == 0) return {Kind::kInvalid, 1};
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (at + i == text.size()) return {Kind::kCutOff, i};
    const std::uint8_t low = i == 1 ? lead.second_min : std::uint8_t{0x80};
    const std::uint8_t high = i == 1 ? lead.second_max : std::uint8_t{0xBF};
    if (byte(i) < low || byte(i) > high) return {Kind::kInvalid, i};
  }
  return {Kind::kWhole, lead.length};
}

}  // namespace

std::string valid_utf8(std::string_view text, std::size_t* incomplete) {
  std::string out;
  out.reserve(text.size());
  if (incomplete != nullptr) *incomplete = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    if (character.kind == Character::Kind::kWhole) {
      out.append(text.substr(at, character.length));
    } else if (character.kind == Character::Kind::kCutOff && incomplete != nullptr) {
      *incomplete = character.length;
    } else {
      out.append(kReplacement);
    }
    at += character.length;
  }
  return out;
}

TextFilter::TextFilter(std::vector<std::string> stop_sequences)
    : stop_sequences_(std::move(stop_sequences)) {
  for (const std::string& stop : stop_sequences_) PENSIEVE_CHECK(!stop.empty());
}

std::string TextFilter::push(std::string_view bytes) {
  if (met_) return {};
  held_.append(bytes);

  // The stop sequence that is complete first, and of those that end together the longest: so the
  // result is the same however the bytes were cut into pieces.
  std::size_t start = 0;
  std::size_t end = std::string::npos;
  const std::string* met = nullptr;
  for (const std::string& stop : stop_sequences_) {
    const std::size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (std::pair(at + stop.size(), at) >= std::pair(end, start)) continue;
    start = at;
    end = at + stop.size();
    met = &stop;
  }
  if (met != nullptr) {
    met_ = *met;
    held_.resize(start);
    return finish();
  }
  return take(start_of_partial_stop());
}

std::string TextFilter::finish() {
  std::string rest = valid_utf8(held_);
  held_.clear();
  return rest;
}

std::string TextFilter::take(std::size_t bytes) {
  std::size_t incomplete = 0;
  std::string text = valid_utf8(std::string_view(held_).substr(0, bytes), &incomplete);
  held_.erase(0, bytes - incomplete);
  return text;
}

std::size_t TextFilter::start_of_partial_stop() const {
  std::size_t start = held_.size();
  for (const std::string& stop : stop_sequences_) {
    const std::size_t longest = std::min(stop.size() - 1, held_.size());
    for (std::size_t length = longest; length > 0; --length) {
      if (std::string_view(held_).substr(held_.size() - length) ==
          std::string_view(stop).substr(0, length)) {
        start = std::min(start, held_.size() - length);
        break;
      }
    }
  }
  return start;
}

}  // namespace pensieve::worker
