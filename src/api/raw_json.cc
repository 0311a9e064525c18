#include "api/raw_json.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <system_error>

#include <boost/json.hpp>

#include "api/json.h"

namespace pensieve::api {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::size_t skip_space(std::string_view text, std::size_t at) {
  const std::size_t next = text.find_first_not_of(kSpace, at);
  return next == std::string_view::npos ? text.size() : next;
}

/// The end of the string that opens at `at`: one past its closing quote, which is the first one
/// with an even number of backslashes in front.
std::size_t skip_string(std::string_view text, std::size_t at) {
  for (std::size_t quote = text.find('"', at + 1); quote != std::string_view::npos;
       quote = text.find('"', quote + 1)) {
    std::size_t backslashes = 0;
    while (text[quote - 1 - backslashes] == '\\') ++backslashes;
    if (backslashes % 2 == 0) return quote + 1;
  }
  return text.size();
}

/// The end of the value that begins at `at`. Depth is a count, so nesting costs no stack.
std::size_t skip_value(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
    } else if (c == '{' || c == '[') {
      ++depth;
      ++at;
    } else if (c == '}' || c == ']') {
      if (depth > 0) --depth;
      ++at;
    } else if (depth > 0) {
      ++at;
      continue;
    } else {
      const std::size_t end = text.find_first_of(" \t\r\n,:]}", at);
      return end == std::string_view::npos ? text.size() : end;
    }
    if (depth == 0) return at;
  }
  return text.size();
}

/// What the JSON string `raw`, quotes included, says.
std::string unescaped(std::string_view raw) {
  boost::json::error_code code;
  const boost::json::value value = boost::json::parse(raw, code);
  if (code || !value.is_string()) return {};
  return std::string(value.get_string().data(), value.get_string().size());
}

bool says(std::string_view raw, std::string_view text) {
  if (raw.find('\\') != std::string_view::npos) return unescaped(raw) == text;
  return raw.size() == text.size() + 2 && raw.substr(1, text.size()) == text;
}

/// Position of the first item inside `text`, an array or object that opens with `open`; the text's
/// size where it is something else.
std::size_t first_item(std::string_view text, char open) {
  const std::size_t at = skip_space(text, 0);
  if (at >= text.size() || text[at] != open) return text.size();
  return skip_space(text, at + 1);
}

/// Past the comma after an item that ended at `at`; the text's size after the last item.
std::size_t next_item(std::string_view text, std::size_t at) {
  at = skip_space(text, at);
  if (at >= text.size() || text[at] != ',') return text.size();
  return skip_space(text, at + 1);
}

constexpr std::size_t kEscapeBytes = 6;  // "\\ud83d"

/// The code unit of the escape at `at`; 0 where there is none.
unsigned code_unit(std::string_view text, std::size_t at) {
  const std::string_view escape = text.substr(std::min(at, text.size()), kEscapeBytes);
  if (escape.size() < kEscapeBytes || !escape.starts_with("\\u")) return 0;
  unsigned unit = 0;
  const auto [end, error] = std::from_chars(escape.data() + 2, escape.data() + 6, unit, 16);
  return error == std::errc() && end == escape.data() + 6 ? unit : 0;
}

bool is_high(unsigned unit) {
  return unit >= 0xD800 && unit < 0xDC00;
}
bool is_low(unsigned unit) {
  return unit >= 0xDC00 && unit < 0xE000;
}

}  // namespace

void replace_lone_surrogates(std::string& text) {
  for (std::size_t at = text.find('\\'); at != std::string::npos; at = text.find('\\', at)) {
    const unsigned unit = code_unit(text, at);
    if (unit == 0) {
      at += 2;  // Another escape: the backslash and what it stands before.
    } else if (is_high(unit) && is_low(code_unit(text, at + kEscapeBytes))) {
      at += 2 * kEscapeBytes;
    } else {
      if (is_high(unit) || is_low(unit)) text.replace(at, kEscapeBytes, "\\ufffd");
      at += kEscapeBytes;
    }
  }
}

std::vector<std::string_view> raw_elements(std::string_view text) {
  std::vector<std::string_view> elements;
  std::size_t at = first_item(text, '[');
  while (at < text.size() && text[at] != ']') {
    const std::size_t end = skip_value(text, at);
    elements.push_back(text.substr(at, end - at));
    at = next_item(text, end);
  }
  return elements;
}

std::string_view raw_member(std::string_view text, std::string_view key) {
  std::string_view member;
  std::size_t at = first_item(text, '{');
  while (at < text.size() && text[at] == '"') {
    const std::size_t key_end = skip_string(text, at);
    const bool found = says(text.substr(at, key_end - at), key);
    const std::size_t colon = skip_space(text, key_end);
    if (colon >= text.size()) break;
    const std::size_t value = skip_space(text, colon + 1);
    const std::size_t end = skip_value(text, value);
    if (found) member = text.substr(value, end - value);
    at = next_item(text, end);
  }
  return member;
}

std::string compact_json(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '"') {
      const std::size_t end = skip_string(text, at);
      const std::string_view raw = text.substr(at, end - at);
      if (raw.find('\\') == std::string_view::npos) {
        out += raw;
      } else {
        append_json(out, unescaped(raw));
      }
      at = end;
    } else {
      if (kSpace.find(text[at]) == std::string_view::npos) out += text[at];
      ++at;
    }
  }
  return out;
}

}  // namespace pensieve::api
