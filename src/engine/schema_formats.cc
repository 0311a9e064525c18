#include "engine/schema_formats.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include <fmt/core.h>
#include <boost/json.hpp>

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr std::size_t kSchemaDepthMax = 256;  // More than any request has (kJsonDepthMax).

std::string date_pattern() {
  constexpr std::string_view kYear = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
  constexpr std::string_view kLeap = "(0[48]|[2468][048]|[13579][26])";
  constexpr std::string_view kLong = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])";
  constexpr std::string_view kShort = "(0[469]|11)-(0[1-9]|[12][0-9]|30)";
  constexpr std::string_view kFebruary = "02-(0[1-9]|1[0-9]|2[0-8])";
  return fmt::format("({}-({}|{}|{})|([0-9]{{2}}{}|{}00)-02-29)", kYear, kLong, kShort, kFebruary,
                     kLeap, kLeap);
}

std::string time_pattern() {
  return R"(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?)"
         R"((Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))";
}

std::string duration_pattern() {
  const std::string digits = "[0-9]{1,4}";
  const std::string time = fmt::format("T({0}H({0}M({0}S)?)?|{0}M({0}S)?|{0}S)", digits);
  return fmt::format("P(({0}Y({0}M({0}D)?)?|{0}M({0}D)?|{0}D)({1})?|{1}|{0}W)", digits, time);
}

std::string hostname_pattern(int labels_least, int labels_most) {
  const std::string label = "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
  return fmt::format(R"({}(\.{}){{{},{}}})", label, label, labels_least - 1, labels_most - 1);
}

std::string email_pattern() {
  const std::string word = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}";
  return word + R"((\.)" + word + "){0,2}@" + hostname_pattern(2, 4);
}

/// Empty for other formats.
std::string pattern_of(std::string_view format) {
  if (format == "date") return date_pattern();
  if (format == "time") return time_pattern();
  if (format == "date-time") return date_pattern() + "T" + time_pattern();
  if (format == "duration") return duration_pattern();
  if (format == "email") return email_pattern();
  if (format == "hostname") return hostname_pattern(1, 4);
  if (format == "ipv4") {
    const std::string byte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    return fmt::format(R"(({}\.){{3}}{})", byte, byte);
  }
  return {};
}

/// `pattern` with "(...){0,1}" for "(...)?". To xgrammar, what ends the group in "(_a+)?" may stand
/// there without what begins it: it takes "aa" as well as "_aa".
std::string with_counted_options(std::string_view pattern) {
  std::string counted;
  bool in_class = false;
  bool closes_group = false;  // The character before is a ")" that is no text.
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '?' && closes_group) {
      counted += "{0,1}";
    } else {
      counted += c;
    }
    closes_group = c == ')' && !in_class;
    if (c == '\\' && i + 1 < pattern.size()) {
      counted += pattern[++i];
    } else if (c == '[' || c == ']') {
      in_class = c == '[';
    }
  }
  return counted;
}

bool is_string_type(const json::object& schema) {
  const json::value* const type = schema.if_contains("type");
  if (type == nullptr) return false;
  if (const json::array* const types = type->if_array()) {
    return std::find(types->begin(), types->end(), json::value("string")) != types->end();
  }
  return type->is_string() && type->get_string() == "string";
}

void bound_formats(json::value& schema, int depth);

/// A keyword's value, as far as it holds schemas; data of clients is left alone.
void bound_keyword(std::string_view keyword, json::value& value, int depth) {
  constexpr std::array<std::string_view, 4> kData = {"const", "enum", "default", "examples"};
  constexpr std::array<std::string_view, 5> kMaps = {"properties", "patternProperties", "$defs",
                                                     "definitions", "dependentSchemas"};
  if (std::find(kData.begin(), kData.end(), keyword) != kData.end()) return;
  const bool is_map = std::find(kMaps.begin(), kMaps.end(), keyword) != kMaps.end();
  if (json::object* const object = value.if_object(); object != nullptr && is_map) {
    for (auto& [name, schema] : *object) bound_formats(schema, depth);
    if (keyword != "patternProperties") return;
    json::object counted;
    for (auto& [name, schema] : *object) {
      counted.insert_or_assign(with_counted_options(name), std::move(schema));
    }
    *object = std::move(counted);
  } else if (json::array* const list = value.if_array()) {
    for (json::value& schema : *list) bound_formats(schema, depth);
  } else {
    bound_formats(value, depth);
  }
}

void bound_formats(json::value& schema, int depth) {
  json::object* const object = schema.if_object();
  if (object == nullptr || depth == 0) return;
  const json::value* const format = object->if_contains("format");
  if (format != nullptr && format->is_string() && is_string_type(*object) &&
      !object->contains("pattern")) {
    const std::string pattern = pattern_of(format->get_string());
    if (!pattern.empty()) {
      object->erase("format");
      (*object)["pattern"] = "^" + pattern + "$";
    }
  }
  json::value* const pattern = object->if_contains("pattern");
  if (pattern != nullptr && pattern->is_string()) {
    *pattern = with_counted_options(pattern->get_string());
  }
  for (auto& [keyword, value] : *object) bound_keyword(keyword, value, depth - 1);
}

}  // namespace

std::string with_bounded_formats(std::string_view schema) {
  // Most schemas have neither, and are to stay byte for byte what they are.
  if (schema.find("\"format\"") == std::string_view::npos &&
      schema.find(")?") == std::string_view::npos) {
    return std::string(schema);
  }
  json::parse_options options;
  options.max_depth = kSchemaDepthMax;
  boost::system::error_code error;
  json::value value = json::parse(schema, error, {}, options);
  if (error) return std::string(schema);
  bound_formats(value, static_cast<int>(kSchemaDepthMax));
  return json::serialize(value);
}

}  // namespace pensieve::engine
