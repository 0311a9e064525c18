#include "engine/schema_keywords.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr double kBoundMax = 9e15;  // Bounds of whole numbers that a double holds exactly.

bool has(const json::array& types, std::string_view type) {
  return std::find(types.begin(), types.end(), json::value(type)) != types.end();
}

class Keywords {
 public:
  Keywords(const json::object& simple, const KeywordWriter& writer)
      : simple_(simple), writer_(writer), types_(types_of(simple)) {}

  json::object written() {
    if (auto values = listed_values(simple_)) return of_values(*std::move(values));
    constexpr std::array<std::string_view, 7> kTypes = {"null",   "boolean", "object", "array",
                                                        "number", "string",  "integer"};
    const auto is_unknown = [&](const json::value& type) {
      return !type.is_string() ||
             std::find(kTypes.begin(), kTypes.end(), type.get_string()) == kTypes.end();
    };
    if (std::any_of(types_.begin(), types_.end(), is_unknown)) {
      writer_.note(fmt::format("`type` {}", json::serialize(types_)));
      return {};
    }
    // A number is a whole one as well, and bounds of whole ones have another form.
    if (has(types_, "number")) {
      types_.erase(std::remove(types_.begin(), types_.end(), json::value("integer")), types_.end());
    }
    if (types_.size() == 1) out_["type"] = types_.front();
    if (types_.size() > 1) out_["type"] = types_;
    if (has(types_, "string")) write_string();
    if (has(types_, "number") || has(types_, "integer")) write_number(has(types_, "integer"));
    if (has(types_, "array")) write_array();
    if (has(types_, "object")) write_object();
    return std::move(out_);
  }

 private:
  const json::value* get(std::string_view keyword) const { return simple_.if_contains(keyword); }

  std::int64_t count(std::string_view keyword, std::int64_t otherwise) const {
    const json::value* const value = get(keyword);
    return value != nullptr && value->is_int64() ? value->get_int64() : otherwise;
  }

  json::object of_values(json::array values) {
    json::array valid;
    for (json::value& value : values) {
      if (may_be_valid(value, simple_)) valid.push_back(std::move(value));
    }
    if (valid.empty()) {
      writer_.note("`enum` without a valid value");
      return {};
    }
    for (const char* keyword : {"pattern", "format", "properties", "items"}) {
      if (get(keyword) != nullptr) writer_.note(fmt::format("`{}` beside `enum`", keyword));
    }
    return {{"enum", std::move(valid)}};
  }

  void write_string() {
    if (const json::value* const pattern = get("pattern")) {
      if (pattern->is_string() && writer_.can_follow(pattern->get_string())) {
        out_["pattern"] = *pattern;
      } else {
        writer_.note(fmt::format("`pattern` {}", json::serialize(*pattern)));
      }
    }
    if (const json::value* const format = get("format"); format && format->is_string()) {
      out_["format"] = *format;
    }
    if (out_.contains("pattern")) {
      for (const char* keyword : {"minLength", "maxLength"}) {
        if (get(keyword) != nullptr) writer_.note(fmt::format("`{}` beside `pattern`", keyword));
      }
      return;
    }
    write_length("minLength");
    write_length("maxLength");
    if (count("maxLength", INT64_MAX) < count("minLength", 0)) {
      writer_.note("`minLength` above `maxLength`");
      out_.erase("minLength");
    }
  }

  void write_length(std::string_view keyword) {
    const std::int64_t length = count(keyword, -1);
    if (length > kCountedMax) {
      writer_.note(fmt::format("`{}` {}", keyword, length));
    } else if (length >= 0) {
      out_[keyword] = length;
    }
  }

  void write_number(bool whole) {
    for (const char* keyword : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      const json::value* const bound = get(keyword);
      if (bound == nullptr || !bound->is_number()) continue;
      const auto number = bound->to_number<double>();
      if (!whole) {
        out_[keyword] = *bound;
        continue;
      }
      if (!(std::abs(number) <= kBoundMax)) {
        writer_.note(fmt::format("`{}` {}", keyword, json::serialize(*bound)));
        continue;
      }
      const std::string_view name = keyword;
      const bool up = name == "minimum" || name == "exclusiveMaximum";
      out_[keyword] = static_cast<std::int64_t>(up ? std::ceil(number) : std::floor(number));
    }
    const json::value* const multiple = get("multipleOf");
    if (multiple == nullptr || !multiple->is_number()) return;
    const auto number = multiple->to_number<double>();
    if (whole && number >= 1 && number <= kBoundMax && number == std::floor(number)) {
      out_["multipleOf"] = static_cast<std::int64_t>(number);
    } else if (number != 1) {
      writer_.note("`multipleOf`");
    }
  }

  void write_array() {
    std::int64_t least = std::max<std::int64_t>(count("minItems", 0), 0);
    std::int64_t most = count("maxItems", -1);
    if (const json::value* const unique = get("uniqueItems");
        unique && *unique == json::value(true) && most != 0 && most != 1) {
      writer_.note("`uniqueItems`");
    }
    json::array places;
    if (const json::value* const fixed = get("prefixItems"); fixed && fixed->is_array()) {
      places = fixed->get_array();
    }
    const json::value* items = get("items");
    if (items == nullptr) items = get("unevaluatedItems");
    const json::value rest = items == nullptr ? json::value(json::object()) : *items;
    least = std::max(least, place_contained(places, rest));
    json::array written;
    for (const json::value& place : places) {
      if (is_false(place) || (most >= 0 && written.size() >= static_cast<std::size_t>(most))) {
        most = static_cast<std::int64_t>(written.size());
        break;
      }
      written.push_back(writer_.write("/prefixItems", place));
    }
    const auto placed = static_cast<std::int64_t>(written.size());
    // Where nothing is said of further items, there are none, unless some are asked for.
    const bool closed = is_false(rest) || (items == nullptr && placed > 0 && least <= placed);
    if (placed > 0) out_["prefixItems"] = std::move(written);
    if (closed) {
      out_["items"] = false;
      if (least > placed) writer_.note("`minItems` without items");
      least = std::min(least, placed);
    } else {
      out_["items"] = writer_.write("/items", rest);
    }
    write_item_counts(least, most);
  }

  void write_item_counts(std::int64_t least, std::int64_t most) {
    if (least > kCountedMax || most > kCountedMax) {
      writer_.note(fmt::format("a list of {} items", std::max(least, most)));
    }
    if (most >= 0 && least > most) {
      writer_.note("`minItems` above `maxItems`");
      least = most;
    }
    if (least > 0 && least <= kCountedMax) out_["minItems"] = least;
    if (most >= 0 && most <= kCountedMax) out_["maxItems"] = most;
  }

  /// What a list must contain comes first. Returns how many items that takes.
  std::int64_t place_contained(json::array& places, const json::value& rest) {
    constexpr std::int64_t kContainedMax = 16;
    const json::value* const contained = get("contains");
    if (contained == nullptr) return 0;
    if (get("maxContains") != nullptr) writer_.note("`maxContains`");
    const std::int64_t times = count("minContains", 1);
    if (!places.empty() || is_false(rest) || times > kContainedMax) {
      writer_.note("`contains`");
      return 0;
    }
    for (std::int64_t i = 0; i < times; ++i) {
      places.push_back(json::object{{"allOf", json::array{rest, *contained}}});
    }
    return times;
  }

  void write_object() {
    json::object properties;
    json::array required;
    bool has_absent = false;
    if (const json::value* const named = get("properties"); named && named->is_object()) {
      for (const auto& [name, schema] : named->get_object()) {
        if (is_false(schema)) {
          has_absent = true;
        } else {
          properties[name] =
              writer_.write(fmt::format("/properties/{}", std::string(name)), schema);
        }
      }
    }
    const json::value* rule = get("additionalProperties");
    if (rule == nullptr) rule = get("unevaluatedProperties");
    if (const json::value* const names = get("required"); names && names->is_array()) {
      for (const json::value& name : names->get_array()) {
        if (name.is_string()) require(name.get_string(), rule, properties, required);
      }
    }
    write_names(!properties.empty());
    const std::int64_t least = count("minProperties", 0);
    const bool named = get("properties") != nullptr || out_.contains("patternProperties");
    if (has_absent || (rule != nullptr && is_false(*rule))) {
      out_["additionalProperties"] = false;
    } else if (rule != nullptr) {
      out_["additionalProperties"] = writer_.write("/additionalProperties", *rule);
    } else if (least > static_cast<std::int64_t>(properties.size()) ||
               (!named && (least > 0 || !properties.empty() || count("maxProperties", -1) >= 0 ||
                           out_.contains("propertyNames")))) {
      // Nothing is said of the others, and nothing else could be there.
      out_["additionalProperties"] = json::object();
    }
    write_property_counts(least, required.size());
    if (!properties.empty() || get("properties") != nullptr) {
      out_["properties"] = std::move(properties);
    }
    if (!required.empty()) out_["required"] = std::move(required);
  }

  /// A name that is required and not described needs a property, or a grammar leaves it out.
  void require(std::string_view name, const json::value* rule, json::object& properties,
               json::array& required) {
    const json::value* const named = get("properties");
    const json::value* const known =
        named && named->is_object() ? named->get_object().if_contains(name) : nullptr;
    if ((known && is_false(*known)) || (!known && rule && is_false(*rule))) {
      if (get("patternProperties") == nullptr || known != nullptr) {
        writer_.note(fmt::format("`required` {}, which is not allowed", name));
        return;
      }
    }
    if (!properties.contains(name)) {
      if (get("patternProperties") != nullptr) {
        writer_.note(fmt::format("`patternProperties` for the required {}", name));
      }
      const bool has_rule = rule != nullptr && rule->is_object();
      properties[name] = has_rule ? writer_.write("/additionalProperties", *rule) : json::object();
    }
    required.emplace_back(name);
  }

  void write_names(bool has_properties) {
    if (const json::value* const patterns = get("patternProperties");
        patterns && patterns->is_object()) {
      json::object written;
      for (const auto& [pattern, schema] : patterns->get_object()) {
        if (is_false(schema) || !writer_.can_follow(pattern)) {
          writer_.note(fmt::format("`patternProperties` {}", std::string(pattern)));
        } else {
          written[pattern] = writer_.write("/patternProperties", schema);
        }
      }
      if (!written.empty()) out_["patternProperties"] = std::move(written);
    }
    const json::value* const names = get("propertyNames");
    if (names == nullptr || !names->is_object()) return;
    if (has_properties) writer_.note("`propertyNames` for the names in `properties`");
    json::object schema = names->get_object();
    schema["type"] = "string";
    out_["propertyNames"] = writer_.write("/propertyNames", schema);
  }

  void write_property_counts(std::int64_t least, std::size_t required) {
    const std::int64_t most = count("maxProperties", -1);
    if (least > kCountedMax || most > kCountedMax) {
      writer_.note(fmt::format("an object of {} properties", std::max(least, most)));
    }
    if (most >= 0 && (most < least || most < static_cast<std::int64_t>(required))) {
      writer_.note("`maxProperties` below what is required");
      return;
    }
    if (least > 0 && least <= kCountedMax) out_["minProperties"] = least;
    if (most >= 0 && most <= kCountedMax) out_["maxProperties"] = most;
  }

  const json::object& simple_;
  const KeywordWriter& writer_;
  json::array types_;
  json::object out_;
};

}  // namespace

json::object written_keywords(const json::object& simple, const KeywordWriter& writer) {
  return Keywords(simple, writer).written();
}

}  // namespace pensieve::engine
