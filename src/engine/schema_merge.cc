#include "engine/schema_merge.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr int kDisjointDepthMax = 4;  // Choice: marks that tell objects apart stand near the top.

bool contains(const json::array& list, const json::value& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

bool is_any(const json::value& schema) {
  if (schema.is_bool()) return schema.get_bool();
  return schema.is_object() && schema.get_object().empty();
}

/// Both schemas of one property.
json::value both(const json::value& one, const json::value& other) {
  if (is_false(one) || is_false(other)) return false;
  if (is_any(one) || one == other) return other;
  if (is_any(other)) return one;
  return json::object{{"allOf", json::array{one, other}}};
}

json::array types_in(const json::object& schema) {
  const json::value* const type = schema.if_contains("type");
  if (type == nullptr) return {};
  if (const json::array* const types = type->if_array()) return *types;
  return {*type};
}

bool has_type(const json::array& types, std::string_view type) {
  return contains(types, json::value(type)) ||
         (type == "integer" && contains(types, json::value("number")));
}

json::array common_types(const json::array& one, const json::array& other) {
  json::array common;
  for (const json::value& type : one) {
    if (!type.is_string()) continue;
    if (has_type(other, type.get_string())) {
      common.push_back(type);
    } else if (type.get_string() == "number" && has_type(other, "integer")) {
      common.emplace_back("integer");
    }
  }
  return common;
}

const json::object* properties_of(const json::object& schema) {
  const json::value* const properties = schema.if_contains("properties");
  return properties == nullptr ? nullptr : properties->if_object();
}

const json::value* property_of(const json::object& schema, std::string_view name) {
  const json::object* const properties = properties_of(schema);
  return properties == nullptr ? nullptr : properties->if_contains(name);
}

/// What a schema says of properties that it does not name. Patterns of names are not looked at, so
/// nothing is known where there are some.
const json::value* unnamed_rule(const json::object& schema) {
  if (schema.contains("patternProperties")) return nullptr;
  return schema.if_contains("additionalProperties");
}

bool forbids(const json::object& schema, std::string_view name) {
  if (const json::value* const property = property_of(schema, name)) return is_false(*property);
  const json::value* const rule = unnamed_rule(schema);
  return rule != nullptr && is_false(*rule);
}

class Merger {
 public:
  Merger(const json::object& one, const json::object& other, const SchemaNote& note)
      : one_(one), other_(other), note_(note), out_(one) {}

  std::optional<json::object> result() {
    if (!merge_types() || !merge_values()) return std::nullopt;
    merge_properties();
    merge_positions();
    for (const auto& [keyword, value] : other_) {
      if (keyword == "type" || keyword == "const" || keyword == "enum" || keyword == "properties" ||
          keyword == "prefixItems") {
        continue;
      }
      json::value* const mine = out_.if_contains(keyword);
      if (mine == nullptr) {
        out_[keyword] = value;
      } else if (*mine != value) {
        merge_keyword(keyword, *mine, value);
      }
    }
    // Where no type is named, what is no object is still valid.
    const bool is_object = types_in(out_) == json::array{"object"};
    const json::value* const names = out_.if_contains("required");
    if (is_object && names != nullptr && names->is_array()) {
      for (const json::value& name : names->get_array()) {
        if (name.is_string() && forbids(out_, name.get_string())) return std::nullopt;
      }
    }
    return std::move(out_);
  }

 private:
  bool merge_types() {
    const json::array mine = types_in(one_);
    const json::array theirs = types_in(other_);
    if (theirs.empty()) return true;
    json::array common = mine.empty() ? theirs : common_types(mine, theirs);
    if (common.empty()) return false;
    if (common.size() == 1) {
      json::value only = common.front();
      out_["type"] = std::move(only);
    } else {
      out_["type"] = std::move(common);
    }
    return true;
  }

  bool merge_values() {
    const std::optional<json::array> theirs = listed_values(other_);
    if (!theirs) return true;
    json::array common;
    const std::optional<json::array> mine = listed_values(one_);
    for (const json::value& value : mine ? *mine : *theirs) {
      if (contains(*theirs, value)) common.push_back(value);
    }
    if (common.empty()) return false;
    out_.erase("const");
    out_["enum"] = std::move(common);
    return true;
  }

  void merge_properties() {
    const json::object* const mine = properties_of(one_);
    const json::object* const theirs = properties_of(other_);
    if (mine == nullptr && theirs == nullptr) return;
    json::object all;
    const auto add = [&all](const json::object& named, const json::object& elsewhere) {
      for (const auto& [name, schema] : named) {
        if (all.contains(name)) continue;
        const json::value* const known = property_of(elsewhere, name);
        const json::value* const other = known != nullptr ? known : unnamed_rule(elsewhere);
        all[name] = other == nullptr ? schema : both(schema, *other);
      }
    };
    if (mine != nullptr) add(*mine, other_);
    if (theirs != nullptr) add(*theirs, one_);
    out_["properties"] = std::move(all);
  }

  /// What one says of the place, or of all others, holds as well as what the other says.
  void merge_positions() {
    const auto at = [](const json::object& schema, std::size_t place) -> json::value {
      const json::value* const fixed = schema.if_contains("prefixItems");
      if (fixed && fixed->is_array() && place < fixed->get_array().size()) {
        return fixed->get_array()[place];
      }
      const json::value* const rest = schema.if_contains("items");
      return rest == nullptr ? json::value(true) : *rest;
    };
    std::size_t places = 0;
    for (const json::object* const schema : {&one_, &other_}) {
      const json::value* const fixed = schema->if_contains("prefixItems");
      if (fixed && fixed->is_array()) places = std::max(places, fixed->get_array().size());
    }
    json::array all;
    for (std::size_t i = 0; i < places; ++i) all.push_back(both(at(one_, i), at(other_, i)));
    if (places > 0) out_["prefixItems"] = std::move(all);
  }

  void merge_keyword(std::string_view keyword, json::value& mine, const json::value& theirs) {
    constexpr std::array<std::string_view, 5> kLargest = {"minimum", "exclusiveMinimum",
                                                          "minLength", "minItems", "minProperties"};
    constexpr std::array<std::string_view, 5> kSmallest = {
        "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"};
    constexpr std::array<std::string_view, 4> kSchemas = {"items", "additionalProperties",
                                                          "unevaluatedProperties", "propertyNames"};
    const auto is_in = [keyword](const auto& list) {
      return std::find(list.begin(), list.end(), keyword) != list.end();
    };
    if ((is_in(kLargest) || is_in(kSmallest)) && mine.is_number() && theirs.is_number()) {
      const bool theirs_is_less = theirs.to_number<double>() < mine.to_number<double>();
      if (theirs_is_less == is_in(kSmallest)) mine = theirs;
    } else if (is_in(kSchemas)) {
      mine = both(mine, theirs);
    } else if (keyword == "required" && mine.is_array() && theirs.is_array()) {
      for (const json::value& name : theirs.get_array()) {
        if (!contains(mine.get_array(), name)) mine.get_array().push_back(name);
      }
    } else if (keyword == "patternProperties" && mine.is_object() && theirs.is_object()) {
      for (const auto& [pattern, schema] : theirs.get_object()) {
        json::value* const known = mine.get_object().if_contains(pattern);
        mine.get_object()[pattern] = known == nullptr ? schema : both(*known, schema);
      }
    } else if (keyword == "uniqueItems") {
      mine = true;
    } else if (keyword != "title" && keyword != "description" && keyword != "default" &&
               keyword != "examples") {
      note_(fmt::format("`{}` beside another `{}`", keyword, keyword));
    }
  }

  const json::object& one_;
  const json::object& other_;
  const SchemaNote& note_;
  json::object out_;
};

std::string_view type_of(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "boolean";
    case json::kind::string:
      return "string";
    case json::kind::array:
      return "array";
    case json::kind::object:
      return "object";
    case json::kind::double_:
      return "number";
    case json::kind::int64:
    case json::kind::uint64:
      return "integer";
  }
  return "null";
}

/// No more properties than those that it names. As schema_format() has it, those that do not say
/// are closed.
bool is_closed(const json::object& schema) {
  if (schema.contains("patternProperties") || schema.contains("unevaluatedProperties")) {
    return false;
  }
  const json::value* const rule = schema.if_contains("additionalProperties");
  return rule == nullptr ? schema.contains("properties") : is_false(*rule);
}

bool are_disjoint(const json::object& schema, const json::object& other, int depth);

bool are_disjoint_objects(const json::object& schema, const json::object& other, int depth) {
  if (const json::value* const names = schema.if_contains("required"); names && names->is_array()) {
    for (const json::value& name : names->get_array()) {
      if (!name.is_string()) continue;
      if (forbids(other, name.get_string())) return true;
      const json::value* const mine = property_of(schema, name.get_string());
      const json::value* const theirs = property_of(other, name.get_string());
      if (mine && theirs && mine->is_object() && theirs->is_object() &&
          are_disjoint(mine->get_object(), theirs->get_object(), depth - 1)) {
        return true;
      }
    }
  }
  const json::value* const names = other.if_contains("required");
  if (names == nullptr || !names->is_array()) return false;
  return std::any_of(names->get_array().begin(), names->get_array().end(),
                     [&](const json::value& name) {
                       // What is required and has no property gets one.
                       if (!name.is_string() || requires_name(schema, name.get_string()))
                         return false;
                       const json::value* const mine = property_of(schema, name.get_string());
                       return mine != nullptr ? is_false(*mine) : is_closed(schema);
                     });
}

/// Whether nothing that is made for `schema` is valid for `other`.
bool are_disjoint(const json::object& schema, const json::object& other, int depth) {
  if (depth == 0) return false;
  const std::optional<json::array> values = listed_values(schema);
  if (values) {
    const std::optional<json::array> others = listed_values(other);
    return std::none_of(values->begin(), values->end(), [&](const json::value& value) {
      return may_be_valid(value, other) && (!others || contains(*others, value));
    });
  }
  const json::array types = types_of(schema);
  const json::array others = types_in(other);
  if (!types.empty() && !others.empty() && common_types(types, others).empty()) return true;
  const bool is_object = types.size() == 1 && types.front() == json::value("object");
  return is_object && are_disjoint_objects(schema, other, depth);
}

/// The values of a schema that has few of them.
std::optional<json::array> few_values(const json::object& schema) {
  if (schema.size() == 1 && types_in(schema) == json::array{"boolean"}) return {{true, false}};
  return listed_values(schema);
}

std::optional<json::object> narrowed(const json::object& schema, const json::object& other,
                                     int depth);

/// What was set apart as an object may be nothing else: that would be valid for both.
void name_type(json::object& schema) {
  if (!schema.contains("type") && types_of(schema) == json::array{"object"}) {
    schema["type"] = "object";
  }
}

/// An object without something that the other needs, or with a value of it that the other has not.
std::optional<json::object> narrowed_object(const json::object& schema, const json::object& other,
                                            int depth) {
  json::object narrow = schema;
  name_type(narrow);
  json::value& properties = narrow["properties"];
  if (!properties.is_object()) properties = json::object();
  if (const json::value* const names = other.if_contains("required"); names && names->is_array()) {
    for (const json::value& name : names->get_array()) {
      if (!name.is_string() || requires_name(schema, name.get_string())) continue;
      properties.get_object()[name.get_string()] = false;
      return narrow;
    }
  }
  const json::object* const theirs = properties_of(other);
  if (theirs == nullptr) return std::nullopt;
  for (const auto& [name, property] : *theirs) {
    json::value* const mine = properties.get_object().if_contains(name);
    if (!mine || !mine->is_object() || !property.is_object()) continue;
    std::optional<json::object> apart =
        narrowed(mine->get_object(), property.get_object(), depth - 1);
    if (!apart) continue;
    *mine = *std::move(apart);
    if (!requires_name(schema, name)) {
      json::value& required = narrow["required"];
      if (!required.is_array()) required = json::array();
      required.get_array().emplace_back(name);
    }
    return narrow;
  }
  return std::nullopt;
}

std::optional<json::object> narrowed(const json::object& schema, const json::object& other,
                                     int depth) {
  if (depth == 0) return std::nullopt;
  if (are_disjoint(schema, other, depth)) {
    json::object apart = schema;
    name_type(apart);
    return apart;
  }
  if (const std::optional<json::array> values = few_values(schema)) {
    const std::optional<json::array> others = listed_values(other);
    json::array left;
    for (const json::value& value : *values) {
      const bool may_be = may_be_valid(value, other) && (!others || contains(*others, value));
      if (!may_be) left.push_back(value);
    }
    if (left.empty()) return std::nullopt;
    json::object narrow = schema;
    narrow.erase("const");
    narrow["enum"] = std::move(left);
    return narrow;
  }
  if (types_of(schema) != json::array{"object"}) return std::nullopt;
  return narrowed_object(schema, other, depth);
}

bool is_within(const json::object& schema, double number, std::string_view least,
               std::string_view most, bool inclusive) {
  const json::value* const low = schema.if_contains(least);
  const json::value* const high = schema.if_contains(most);
  if (low && low->is_number()) {
    const auto bound = low->to_number<double>();
    if (number < bound || (!inclusive && number == bound)) return false;
  }
  if (high && high->is_number()) {
    const auto bound = high->to_number<double>();
    if (number > bound || (!inclusive && number == bound)) return false;
  }
  return true;
}

/// Characters, as JSON schemas count them.
double length_of(std::string_view text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

}  // namespace

bool is_false(const json::value& schema) {
  return schema.is_bool() && !schema.get_bool();
}

bool requires_name(const json::object& schema, std::string_view name) {
  const json::value* const names = schema.if_contains("required");
  return names != nullptr && names->is_array() && contains(names->get_array(), json::value(name));
}

std::optional<json::object> merged(const json::object& one, const json::object& other,
                                   const SchemaNote& note) {
  return Merger(one, other, note).result();
}

std::optional<json::object> without(const json::object& schema, const json::object& other) {
  return narrowed(schema, other, kDisjointDepthMax);
}

std::optional<json::array> listed_values(const json::object& schema) {
  if (const json::value* const value = schema.if_contains("const")) return json::array{*value};
  const json::value* const values = schema.if_contains("enum");
  if (values == nullptr || !values->is_array()) return std::nullopt;
  return values->get_array();
}

bool may_be_valid(const json::value& value, const json::object& schema) {
  const json::array types = types_in(schema);
  if (!types.empty()) {
    std::string_view type = type_of(value);
    const bool is_whole = value.is_double() && value.get_double() == std::floor(value.get_double());
    if (is_whole) type = "integer";
    if (!has_type(types, type)) return false;
  }
  if (value.is_number()) {
    const auto number = value.to_number<double>();
    return is_within(schema, number, "minimum", "maximum", true) &&
           is_within(schema, number, "exclusiveMinimum", "exclusiveMaximum", false);
  }
  if (value.is_string()) {
    return is_within(schema, length_of(value.get_string()), "minLength", "maxLength", true);
  }
  if (value.is_array()) {
    return is_within(schema, static_cast<double>(value.get_array().size()), "minItems", "maxItems",
                     true);
  }
  return true;
}

json::array types_of(const json::object& schema) {
  json::array types = types_in(schema);
  if (!types.empty()) return types;
  constexpr std::array<std::pair<std::string_view, std::string_view>, 24> kAbout = {
      {{"properties", "object"},
       {"required", "object"},
       {"minProperties", "object"},
       {"additionalProperties", "object"},
       {"maxProperties", "object"},
       {"patternProperties", "object"},
       {"propertyNames", "object"},
       {"unevaluatedProperties", "object"},
       {"items", "array"},
       {"prefixItems", "array"},
       {"minItems", "array"},
       {"maxItems", "array"},
       {"uniqueItems", "array"},
       {"contains", "array"},
       {"pattern", "string"},
       {"format", "string"},
       {"minLength", "string"},
       {"maxLength", "string"},
       {"minimum", "number"},
       {"maximum", "number"},
       {"multipleOf", "number"},
       {"exclusiveMinimum", "number"},
       {"exclusiveMaximum", "number"},
       {"unevaluatedItems", "array"}}};
  for (const auto& [keyword, type] : kAbout) {
    if (schema.contains(keyword)) return {json::value(type)};
  }
  return {};
}

}  // namespace pensieve::engine
