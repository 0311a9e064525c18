#include "api/tools.h"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "api/raw_json.h"
#include "api/web_search.h"
#include "base/error.h"

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;

std::expected<bool, Refusal> flag(const object& members, std::string_view key) {
  const value* field = find(members, key);
  if (field == nullptr) return false;
  if (!field->is_bool()) return refuse(std::string(key), "Input should be a valid boolean");
  return field->get_bool();
}

std::expected<std::string, Refusal> tool_name(const object& tool) {
  const auto name = require_string(tool, "name");
  if (!name) return std::unexpected(name.error());
  if (name->empty()) return refuse("name", "String should have at least 1 character");
  if (name->size() > kToolNameBytesMax) {
    return refuse("name", fmt::format("String should have at most {} bytes", kToolNameBytesMax));
  }
  return std::string(*name);
}

/// Empty for a tool that is not offered.
std::expected<std::optional<engine::Tool>, Refusal> parse_tool(const value& element,
                                                               std::string_view raw) {
  const object* members = element.if_object();
  if (members == nullptr) return refuse("", "Input should be an object");
  if (const value* type = find(*members, "type")) {
    const boost::json::string* text = type->if_string();
    if (text == nullptr) return refuse("type", "Input should be a valid string");
    if (text->starts_with("web_search_")) return std::nullopt;
    if (*text != "custom") {
      return refuse("type", fmt::format("this server has no '{}'; it takes tools with an "
                                        "input_schema of their own",
                                        std::string_view(*text)));
    }
  }
  engine::Tool tool;
  auto name = tool_name(*members);
  if (!name) return std::unexpected(name.error());
  tool.name = *std::move(name);
  if (find(*members, "description") != nullptr) {
    const auto description = require_string(*members, "description");
    if (!description) return std::unexpected(description.error());
    tool.description = *description;
  }
  const auto schema = require(*members, "input_schema");
  if (!schema) return std::unexpected(schema.error());
  if (!(*schema)->is_object()) return refuse("input_schema", "Input should be an object");
  tool.parameters = compact_json(raw_member(raw, "input_schema"));
  const auto deferred = flag(*members, "defer_loading");
  if (!deferred) return std::unexpected(deferred.error());
  tool.shown = !*deferred;
  return tool;
}

std::expected<void, Refusal> read_choice(const object& choice,
                                         const std::vector<engine::Tool>& tools, bool searches,
                                         engine::AnswerRules& rules) {
  const auto type = require_string(choice, "type");
  if (!type) return std::unexpected(type.error());
  const auto single = flag(choice, "disable_parallel_tool_use");
  if (!single) return std::unexpected(single.error());
  rules.parallel_calls = !*single;
  if (*type == "auto") return {};
  if (*type == "none") {
    rules.tool_choice = engine::ToolChoice::kNone;
    return {};
  }
  if (*type != "any" && *type != "tool") {
    return refuse("type", "Input should be 'auto', 'any', 'tool' or 'none'");
  }
  std::string_view name;
  if (*type == "tool") {
    const auto named = require_string(choice, "name");
    if (!named) return std::unexpected(named.error());
    name = *named;
  }
  if (tools.empty() && searches) return {};  // The search that fails is the call.
  if (tools.empty()) return refuse("", "it needs tools, and the request has none");
  rules.tool_choice = engine::ToolChoice::kAny;
  if (*type == "any") return {};
  const auto known = [&](const engine::Tool& tool) { return tool.name == name; };
  if (std::ranges::none_of(tools, known)) {
    return refuse("name", fmt::format("Tool '{}' not found in provided tools", name));
  }
  rules.tool_choice = engine::ToolChoice::kNamed;
  rules.tool_name = name;
  return {};
}

/// The schema of a format object, as the bytes that the client sent.
std::expected<std::string, Refusal> read_format(const value& format, std::string_view raw) {
  const object* members = format.if_object();
  if (members == nullptr) return refuse("", "Input should be an object");
  const auto type = require_string(*members, "type");
  if (!type) return std::unexpected(type.error());
  if (*type != "json_schema") return refuse("type", "Input should be 'json_schema'");
  const auto schema = require(*members, "schema");
  if (!schema) return std::unexpected(schema.error());
  if (!(*schema)->is_object()) return refuse("schema", "Input should be an object");
  return compact_json(raw_member(raw, "schema"));
}

/// Both places are looked at, also where the older one goes before.
std::expected<std::string, Refusal> output_schema(const object& body, std::string_view raw) {
  std::string schema;
  if (const value* config = find(body, "output_config")) {
    const object* members = config->if_object();
    if (members == nullptr) return refuse("output_config", "Input should be an object");
    if (const value* format = find(*members, "format")) {
      auto read = read_format(*format, raw_member(raw_member(raw, "output_config"), "format"));
      if (!read) return std::unexpected(within("output_config", within("format", read.error())));
      schema = *std::move(read);
    }
  }
  if (const value* older = find(body, "output_format")) {
    auto read = read_format(*older, raw_member(raw, "output_format"));
    if (!read) return std::unexpected(within("output_format", read.error()));
    schema = *std::move(read);
  }
  return schema;
}

}  // namespace

std::expected<std::vector<engine::Tool>, Refusal> parse_tools(const object& body,
                                                              std::string_view raw) {
  std::vector<engine::Tool> tools;
  const value* field = find(body, "tools");
  if (field == nullptr) return tools;
  const boost::json::array* list = field->if_array();
  if (list == nullptr) return refuse("tools", "Input should be a valid list");
  if (list->size() > kToolsMax) {
    return refuse("tools", fmt::format("List should have at most {} items", kToolsMax));
  }
  const std::vector<std::string_view> raws = raw_elements(raw_member(raw, "tools"));
  PENSIEVE_CHECK(raws.size() == list->size());
  std::unordered_set<std::string> names;
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto tool = parse_tool((*list)[i], raws[i]);
    if (!tool) return std::unexpected(within("tools", within(i, tool.error())));
    if (!*tool) continue;
    if (!names.insert((*tool)->name).second) return refuse("tools", "Tool names must be unique.");
    tools.push_back(**std::move(tool));
  }
  return tools;
}

std::expected<engine::AnswerRules, Refusal> parse_answer_rules(
    const object& body, std::string_view raw, const std::vector<engine::Tool>& tools) {
  engine::AnswerRules rules;
  if (const value* choice = find(body, "tool_choice")) {
    const object* members = choice->if_object();
    if (members == nullptr) return refuse("tool_choice", "Input should be an object");
    if (const auto read = read_choice(*members, tools, only_searches(body), rules); !read) {
      return std::unexpected(within("tool_choice", read.error()));
    }
  }
  auto schema = output_schema(body, raw);
  if (!schema) return std::unexpected(schema.error());
  rules.json_schema = *std::move(schema);
  return rules;
}

std::string ToolList::reference(std::string_view name) {
  const auto tool = std::ranges::find(tools_, name, &engine::Tool::name);
  if (tool == tools_.end()) return std::string(name);
  std::erase(removed_, name);
  if (std::ranges::find(referenced_, name) == referenced_.end()) referenced_.emplace_back(name);
  std::string text = "<functions><function>{\"description\":";
  append_json(text, tool->description);
  text += ",\"name\":";
  append_json(text, tool->name);
  return text + ",\"parameters\":" + tool->parameters + "}</function></functions>";
}

std::expected<std::string, Refusal> ToolList::define(const value& element, std::string_view raw) {
  auto tool = parse_tool(element, raw);
  if (!tool) return std::unexpected(tool.error());
  if (!*tool) return std::string();
  const std::string name = (*tool)->name;
  (*tool)->shown = false;  // Where the others are listed it would change all that follows.
  const auto known = std::ranges::find(tools_, name, &engine::Tool::name);
  if (known == tools_.end()) {
    if (tools_.size() >= kToolsMax) {
      return refuse("", fmt::format("there are {} tools already", kToolsMax));
    }
    tools_.push_back(**std::move(tool));
  } else if (!known->shown) {
    *known = **std::move(tool);
  }
  return add(name);
}

bool ToolList::is_available(const engine::Tool& tool) const {
  const auto has = [&](const std::vector<std::string>& names) {
    return std::ranges::find(names, tool.name) != names.end();
  };
  return !has(removed_) && (tool.shown || has(referenced_));
}

std::string ToolList::add(std::string_view name) {
  const auto tool = std::ranges::find(tools_, name, &engine::Tool::name);
  return tool == tools_.end() || is_available(*tool) ? std::string() : reference(name);
}

std::string ToolList::remove(std::string_view name) {
  if (std::ranges::find(tools_, name, &engine::Tool::name) == tools_.end()) return {};
  if (std::ranges::find(removed_, name) == removed_.end()) removed_.emplace_back(name);
  return fmt::format("The tool {} is not available any more.", name);
}

void ToolList::drop_unavailable() {
  std::erase_if(tools_, [this](const engine::Tool& tool) { return !is_available(tool); });
}

}  // namespace pensieve::api
