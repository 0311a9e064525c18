#include "engine/schema_drafts.h"

#include <array>
#include <cmath>
#include <string_view>
#include <utility>

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr double kWholeMax = 9e15;  // Whole numbers that a double holds exactly.

void modernize_bound(json::object& schema, std::string_view exclusive, std::string_view plain) {
  json::value* const flag = schema.if_contains(exclusive);
  if (flag == nullptr || !flag->is_bool()) return;
  const bool is_exclusive = flag->get_bool();
  schema.erase(exclusive);
  const json::value* const bound = schema.if_contains(plain);
  if (!is_exclusive || bound == nullptr) return;
  json::value moved = *bound;
  schema.erase(plain);
  schema[exclusive] = std::move(moved);
}

}  // namespace

void modernize(json::object& schema) {
  modernize_bound(schema, "exclusiveMinimum", "minimum");
  modernize_bound(schema, "exclusiveMaximum", "maximum");
  if (json::value* const items = schema.if_contains("items"); items && items->is_array()) {
    json::value positions = std::move(*items);
    schema.erase("items");
    schema["prefixItems"] = std::move(positions);
    if (const json::value* const more = schema.if_contains("additionalItems")) {
      schema["items"] = *more;
    }
  }
  schema.erase("additionalItems");
  if (json::value* const all = schema.if_contains("dependencies"); all && all->is_object()) {
    json::object names;
    json::object schemas;
    for (const auto& [name, needed] : all->get_object()) {
      (needed.is_array() ? names : schemas)[name] = needed;
    }
    schema.erase("dependencies");
    if (!names.empty()) schema["dependentRequired"] = std::move(names);
    if (!schemas.empty()) schema["dependentSchemas"] = std::move(schemas);
  }
  constexpr std::array<std::string_view, 8> kCounts = {
      "minLength",     "maxLength",     "minItems",    "maxItems",
      "minProperties", "maxProperties", "minContains", "maxContains"};
  for (const std::string_view keyword : kCounts) {
    json::value* const count = schema.if_contains(keyword);
    if (count == nullptr) continue;
    const double number = count->is_number() ? count->to_number<double>() : -1;
    if (number < 0 || number > kWholeMax || number != std::floor(number)) {
      schema.erase(keyword);
    } else {
      *count = static_cast<std::int64_t>(number);
    }
  }
}

}  // namespace pensieve::engine
