#include "engine/schema_pointer.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <system_error>

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr std::size_t kParseDepthMax = 1'024;  // Normalized schemas have at most 200 levels.

/// The part of a JSON pointer between two slashes.
std::string unescaped(std::string_view part) {
  std::string out;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '~' && i + 1 < part.size()) {
      out += part[++i] == '1' ? '/' : '~';
      continue;
    }
    unsigned byte = 0;
    if (part[i] == '%' && i + 2 < part.size() &&
        std::from_chars(part.data() + i + 1, part.data() + i + 3, byte, 16).ec == std::errc()) {
      out += static_cast<char>(byte);
      i += 2;
      continue;
    }
    out += part[i];
  }
  return out;
}

}  // namespace

std::optional<json::value> parsed_schema(std::string_view normalized) {
  json::parse_options options;
  options.max_depth = kParseDepthMax;
  boost::system::error_code error;
  json::value schema = json::parse(normalized, error, {}, options);
  if (error) return std::nullopt;
  return schema;
}

const json::value* target_of(const json::value& root, std::string_view reference) {
  if (reference.empty() || reference.front() != '#') return nullptr;
  reference.remove_prefix(1);
  const json::value* at = &root;
  while (!reference.empty()) {
    if (reference.front() != '/') return nullptr;
    reference.remove_prefix(1);
    const std::size_t end = std::min(reference.find('/'), reference.size());
    const std::string part = unescaped(reference.substr(0, end));
    reference.remove_prefix(end);
    if (const json::object* const object = at->if_object()) {
      at = object->if_contains(part);
    } else if (const json::array* const list = at->if_array()) {
      std::size_t index = 0;
      const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
      if (read.ec != std::errc() || read.ptr != part.data() + part.size()) return nullptr;
      at = list->if_contains(index);
    } else {
      at = nullptr;
    }
    if (at == nullptr) return nullptr;
  }
  return at;
}

}  // namespace pensieve::engine
