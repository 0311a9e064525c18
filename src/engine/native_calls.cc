#include "engine/native_calls.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "engine/schema_pointer.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;
using Kind = TaggedArgument::Kind;

constexpr int kReferenceStepsMax = 32;
// Llama-common makes rules of its own of objects, so that these can be replaced.
constexpr std::string_view kObjectStandIn =
    R"({"type":"object","properties":{"zqxv":{"type":"integer"}},"required":["zqxv"]})";
constexpr std::string_view kTextStandIn = R"({"type":"string"})";

/// Reads schemas of schema_normalize.h: references, anyOf, and the keywords of one type.
class Reader {
 public:
  /// `root` must outlive it.
  explicit Reader(const json::value& root) : root_(root) {}

  /// What `schema` refers to, at last; null where that is nothing.
  const json::value* followed(const json::value& schema) const {
    const json::value* at = &schema;
    for (int i = 0; i < kReferenceStepsMax && at != nullptr; ++i) {
      const json::object* const object = at->if_object();
      const json::value* const reference = object ? object->if_contains("$ref") : nullptr;
      if (reference == nullptr) return at;
      const json::string* const text = reference->if_string();
      at = text ? target_of(root_, *text) : nullptr;
    }
    return nullptr;
  }

  /// The branches of `schema` that are no choices themselves. False: too many.
  bool branches(const json::value& schema, std::vector<const json::value*>& out, int depth) const {
    const json::value* const at = followed(schema);
    if (at == nullptr || depth > kReferenceStepsMax || out.size() > kNativeCallsMax) return false;
    const json::object* const object = at->if_object();
    const json::value* const any = object ? object->if_contains("anyOf") : nullptr;
    if (any == nullptr || !any->is_array()) {
      out.push_back(at);
      return true;
    }
    return std::all_of(any->get_array().begin(), any->get_array().end(),
                       [&](const json::value& branch) { return branches(branch, out, depth + 1); });
  }

  TaggedArgument argument(std::string_view name, const json::value& schema) const {
    TaggedArgument argument{.name = std::string(name), .kind = Kind::kJson, .schema = {}};
    std::vector<const json::value*> all;
    if (branches(schema, all, 0)) {
      if (std::any_of(all.begin(), all.end(),
                      [](const json::value* branch) { return takes_any_text(*branch); })) {
        argument.kind = Kind::kAnyText;
      } else if (all.size() == 1 && takes_text_alone(*all[0])) {
        argument.kind = Kind::kText;
      }
    }
    // Of a string all that it says is needed there, and it refers to nothing.
    argument.schema =
        argument.kind == Kind::kText ? json::serialize(*all[0]) : with_definitions(schema);
    return argument;
  }

  /// With what it may refer to.
  std::string with_definitions(const json::value& schema) const {
    const json::value* const definitions = target_of(root_, "#/$defs");
    const json::object* const object = schema.if_object();
    if (object == nullptr || definitions == nullptr) return json::serialize(schema);
    json::object with = *object;
    with["$defs"] = *definitions;
    return json::serialize(with);
  }

 private:
  static bool takes_any_text(const json::value& schema) {
    if (schema.is_bool()) return schema.get_bool();
    const json::object* const object = schema.if_object();
    if (object == nullptr) return false;
    const bool is_limited = std::any_of(object->begin(), object->end(), [](const auto& member) {
      static const std::set<std::string_view> kLimits = {
          "enum", "const", "pattern", "format", "minLength", "maxLength", "anyOf", "$ref"};
      return kLimits.contains(std::string_view(member.key()));
    });
    if (is_limited) return false;
    const json::value* const type = object->if_contains("type");
    if (type == nullptr) return true;
    const auto is_string = [](const json::value& name) {
      return name.is_string() && name.get_string() == "string";
    };
    if (const json::array* const types = type->if_array()) {
      return std::any_of(types->begin(), types->end(), is_string);
    }
    return is_string(*type);
  }

  static bool takes_text_alone(const json::value& schema) {
    const json::object* const object = schema.if_object();
    if (object == nullptr) return false;
    if (const json::value* const value = object->if_contains("const")) return value->is_string();
    if (const json::value* const values = object->if_contains("enum")) {
      const json::array* const list = values->if_array();
      return list && !list->empty() &&
             std::all_of(list->begin(), list->end(),
                         [](const json::value& value) { return value.is_string(); });
    }
    const json::value* const type = object->if_contains("type");
    return type && type->is_string() && type->get_string() == "string";
  }

  const json::value& root_;
};

/// The arguments that `branch` names; nothing where it is no object.
std::optional<std::vector<TaggedArgument>> arguments_of(const Reader& reader,
                                                        const json::value& branch) {
  std::vector<TaggedArgument> arguments;
  const json::object* const object = branch.if_object();
  if (object == nullptr) return std::nullopt;
  const json::value* const named = object->if_contains("properties");
  const json::object* const properties = named ? named->if_object() : nullptr;
  if (properties == nullptr) return arguments;
  std::set<std::string_view> required;
  if (const json::value* const names = object->if_contains("required");
      names && names->is_array()) {
    for (const json::value& name : names->get_array()) {
      if (name.is_string()) required.insert(name.get_string());
    }
  }
  for (const auto& property : *properties) {
    const json::value& schema = property.value();
    if (schema.is_bool() && !schema.get_bool()) continue;  // Is never written.
    if (arguments.size() == kTaggedArgumentsMax) return std::nullopt;
    const std::string_view name = property.key();
    arguments.push_back(reader.argument(name, schema));
    arguments.back().is_required = required.contains(name);
  }
  return arguments;
}

/// An argument that is text in one way to call a tool and JSON in another cannot be read. Text
/// with limits is any text in a form that has no place for them.
void make_kinds_readable(std::vector<NativeCall>& calls, bool limits_text) {
  std::map<std::pair<std::string, std::string>, std::set<Kind>> kinds;
  for (const NativeCall& call : calls) {
    for (const TaggedArgument& argument : call.arguments) {
      kinds[{call.tool, argument.name}].insert(argument.kind);
    }
  }
  for (NativeCall& call : calls) {
    for (TaggedArgument& argument : call.arguments) {
      if (kinds[{call.tool, argument.name}].contains(Kind::kJson)) argument.kind = Kind::kJson;
      if (argument.kind == Kind::kText && !limits_text) argument.kind = Kind::kAnyText;
    }
  }
}

json::value stand_in_schema(Kind kind) {
  return json::parse(kind == Kind::kJson ? kObjectStandIn : kTextStandIn);
}

}  // namespace

std::string tool_stand_in(std::size_t i) {
  return fmt::format("{}{:04}", kToolStandIn, i);
}

std::string argument_stand_in(std::size_t i) {
  return fmt::format("zqxp{:04}", i);
}

std::vector<NativeCall> native_calls(const std::vector<Tool>& tools,
                                     const NativeArguments& arguments) {
  std::vector<NativeCall> calls;
  for (const Tool& tool : tools) {
    if (arguments.form != ArgumentsForm::kTagged) {
      if (calls.size() == kNativeCallsMax) return {};
      calls.push_back({tool.name, tool.parameters});
      continue;
    }
    const json::value schema = parsed_schema(tool.parameters).value_or(json::object());
    const Reader reader(schema);
    std::vector<const json::value*> branches;
    if (!reader.branches(schema, branches, 0)) return {};
    for (const json::value* const branch : branches) {
      auto named = arguments_of(reader, *branch);
      if (!named || calls.size() == kNativeCallsMax) return {};
      calls.push_back({tool.name, tool.parameters, *std::move(named)});
    }
  }
  make_kinds_readable(calls, arguments.limits_text);
  return calls;
}

std::vector<Tool> stand_ins(const std::vector<NativeCall>& calls) {
  std::vector<Tool> tools;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    json::object properties;
    json::array required;
    for (std::size_t j = 0; j < calls[i].arguments.size(); ++j) {
      const TaggedArgument& argument = calls[i].arguments[j];
      properties[argument_stand_in(j)] = stand_in_schema(argument.kind);
      if (argument.is_required) required.emplace_back(argument_stand_in(j));
    }
    json::object schema{{"type", "object"}, {"properties", std::move(properties)}};
    if (!required.empty()) schema["required"] = std::move(required);
    tools.push_back({tool_stand_in(i), "", json::serialize(schema)});
  }
  return tools;
}

std::vector<Tool> tools_to_read(const std::vector<NativeCall>& calls) {
  std::vector<Tool> tools;
  std::map<std::string, json::object> properties;
  for (const NativeCall& call : calls) {
    if (!properties.contains(call.tool)) tools.push_back({call.tool, "", ""});
    json::object& known = properties[call.tool];
    for (const TaggedArgument& argument : call.arguments) {
      known[argument.name] = stand_in_schema(argument.kind);
    }
  }
  for (Tool& tool : tools) {
    tool.parameters = json::serialize(
        json::object{{"type", "object"}, {"properties", std::move(properties[tool.name])}});
  }
  return tools;
}

}  // namespace pensieve::engine
