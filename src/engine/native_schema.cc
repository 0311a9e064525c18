#include "engine/native_schema.h"

#include <algorithm>
#include <array>
#include <utility>

#include <boost/json.hpp>

namespace pensieve::engine {
namespace {

namespace json = boost::json;

/// Of the type alone: the rest is what may be exotic.
json::object outline_of(const json::value& property) {
  constexpr std::array<std::string_view, 6> kTypes{"string",  "number", "integer",
                                                   "boolean", "object", "array"};
  json::object outline;
  const json::object* const object = property.if_object();
  const json::value* const type = object == nullptr ? nullptr : object->if_contains("type");
  const json::string* const name = type == nullptr ? nullptr : type->if_string();
  if (name == nullptr) return outline;
  const std::string_view text(*name);
  if (std::find(kTypes.begin(), kTypes.end(), text) != kTypes.end()) outline["type"] = *name;
  if (text == "array") outline["items"] = json::object();  // Templates ask for it.
  return outline;
}

}  // namespace

std::string schema_outline(std::string_view schema) {
  json::object outline{{"type", "object"}};
  boost::system::error_code error;
  const json::value parsed = json::parse(schema, error);
  const json::object* const root = error ? nullptr : parsed.if_object();
  const json::value* const named = root == nullptr ? nullptr : root->if_contains("properties");
  const json::object* const properties = named == nullptr ? nullptr : named->if_object();
  if (properties == nullptr || properties->empty()) return json::serialize(outline);

  json::object outlines;
  for (const auto& property : *properties) {
    outlines[property.key()] = outline_of(property.value());
  }
  json::array required;
  const json::value* const wanted = root->if_contains("required");
  if (wanted != nullptr && wanted->is_array()) {
    for (const json::value& name : wanted->as_array()) {
      if (name.is_string() && outlines.contains(name.as_string())) required.push_back(name);
    }
  }
  outline["properties"] = std::move(outlines);
  outline["required"] = std::move(required);
  return json::serialize(outline);
}

}  // namespace pensieve::engine
