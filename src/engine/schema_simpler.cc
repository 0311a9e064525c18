#include "engine/schema_simpler.h"

#include <array>
#include <optional>

#include <boost/json.hpp>

#include "engine/schema_pointer.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr std::int64_t kCountMax = 16;  // Choice: a grammar repeats what it counts.

void simplify(json::value& value) {
  json::object* const schema = value.if_object();
  if (schema == nullptr) return;
  for (const char* keyword : {"pattern", "format", "patternProperties", "propertyNames",
                              "multipleOf", "minProperties", "maxProperties"}) {
    if (schema->erase(keyword) > 0 && keyword == std::string_view("patternProperties")) {
      (*schema)["additionalProperties"] = json::object();
    }
  }
  for (const char* keyword : {"minLength", "maxLength", "minItems", "maxItems"}) {
    const json::value* const count = schema->if_contains(keyword);
    if (count && !(count->is_int64() && count->get_int64() <= kCountMax)) schema->erase(keyword);
  }
  for (const char* keyword : {"properties", "$defs"}) {
    json::value* const named = schema->if_contains(keyword);
    if (!named || !named->is_object()) continue;
    for (auto& [name, inner] : named->get_object()) simplify(inner);
  }
  for (const char* keyword : {"anyOf", "prefixItems"}) {
    json::value* const list = schema->if_contains(keyword);
    if (!list || !list->is_array()) continue;
    for (json::value& inner : list->get_array()) simplify(inner);
  }
  for (const char* keyword : {"items", "additionalProperties"}) {
    if (json::value* const inner = schema->if_contains(keyword)) simplify(*inner);
  }
}

}  // namespace

std::string simpler_schema(std::string_view normalized) {
  std::optional<json::value> schema = parsed_schema(normalized);
  if (!schema) return "{}";
  simplify(*schema);
  return json::serialize(*schema);
}

}  // namespace pensieve::engine
