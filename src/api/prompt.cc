#include "api/prompt.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "api/content.h"
#include "api/raw_json.h"
#include "base/error.h"

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;
using engine::Role;

struct Turn {
  Role role = Role::kUser;
  std::vector<Part> parts;  // At least one.
};

using CallNames = std::unordered_map<std::string, std::string>;  // By the call's id.

std::optional<Role> role_from(const value& role) {
  if (role == "user") return Role::kUser;
  if (role == "assistant") return Role::kAssistant;
  if (role == "system") return Role::kSystem;
  return std::nullopt;
}

/// Claude Code derives the line from the first user prompt. Only the line goes: a client that
/// sends its system prompt as one string keeps the rest.
void drop_billing_lines(std::vector<Part>& parts) {
  constexpr std::string_view kBilling = "x-anthropic-billing-header:";
  for (Part& part : parts) {
    if (!part.text.starts_with(kBilling)) continue;
    const std::size_t line_end = part.text.find('\n');
    part.text.erase(0, line_end == std::string::npos ? line_end : line_end + 1);
  }
  std::erase_if(parts, [](const Part& part) { return part.text.empty(); });
}

void append_turn(std::vector<Turn>& turns, Role role, std::vector<Part> parts) {
  if (role == Role::kSystem) drop_billing_lines(parts);
  if (parts.empty()) return;
  if (turns.empty() || turns.back().role != role) {
    turns.push_back({role, std::move(parts)});
    return;
  }
  std::vector<Part>& last = turns.back().parts;
  std::move(parts.begin(), parts.end(), std::back_inserter(last));
}

/// Puts the results of `turn` into the order of `calls`; all other parts stay in their places.
void sort_results(Turn& turn, const std::unordered_map<std::string, std::size_t>& calls) {
  const auto rank = [&calls](const Part& part) {
    const auto call = calls.find(part.tool_use_id);
    return call == calls.end() ? calls.size() : call->second;
  };
  std::vector<Part> results;
  for (Part& part : turn.parts) {
    if (part.kind == Part::Kind::kToolResult) results.push_back(std::move(part));
  }
  std::ranges::stable_sort(results, {}, rank);
  auto next = results.begin();
  for (Part& part : turn.parts) {
    if (part.kind == Part::Kind::kToolResult) part = std::move(*next++);
  }
}

void sort_results(std::vector<Turn>& turns) {
  std::unordered_map<std::string, std::size_t> calls;
  for (Turn& turn : turns) {
    if (turn.role == Role::kUser) sort_results(turn, calls);
    if (turn.role != Role::kAssistant) continue;
    calls.clear();
    for (const Part& part : turn.parts) {
      if (part.kind == Part::Kind::kToolUse) calls.emplace(part.tool_use_id, calls.size());
    }
  }
}

void append_line(std::string& text, std::string_view line) {
  if (!text.empty()) text += '\n';
  text += line;
}

/// The results of a turn, one message each, then what the user says besides.
void append_user(Turn& turn, const CallNames& names, std::vector<engine::Message>& messages) {
  engine::Message said{.role = turn.role};
  bool is_joined = false;
  for (Part& part : turn.parts) {
    if (part.kind == Part::Kind::kImage) {
      part.images[0].at = said.text.size();
      said.images.push_back(std::move(part.images[0]));
      is_joined = false;
      continue;
    }
    if (part.kind != Part::Kind::kToolResult) {
      if (is_joined) said.text += '\n';  // None next to a picture: its model expects none.
      said.text += part.text;
      is_joined = true;
      continue;
    }
    engine::Message result{.role = Role::kTool, .text = part.text};
    result.images = std::move(part.images);
    result.tool_call_id = part.tool_use_id;
    if (const auto name = names.find(part.tool_use_id); name != names.end()) {
      result.tool_name = name->second;
    }
    messages.push_back(std::move(result));
  }
  if (!said.text.empty() || !said.images.empty()) messages.push_back(std::move(said));
}

engine::Message assistant_message(const Turn& turn, CallNames& names) {
  engine::Message message{.role = Role::kAssistant};
  for (const Part& part : turn.parts) {
    if (part.kind == Part::Kind::kText) append_line(message.text, part.text);
    if (part.kind == Part::Kind::kThinking) append_line(message.thinking, part.text);
    if (part.kind != Part::Kind::kToolUse) continue;
    names[part.tool_use_id] = part.tool_name;
    message.calls.push_back({part.tool_use_id, part.tool_name, part.arguments});
  }
  return message;
}

/// Turns of the assistant that came to nothing but thoughts go, and those around them are one:
/// templates have no place for a turn that says nothing.
void drop_silent_turns(std::vector<Turn>& turns) {
  const auto is_thought = [](const Part& part) { return part.kind == Part::Kind::kThinking; };
  std::vector<Turn> kept;
  kept.reserve(turns.size());
  for (Turn& turn : turns) {
    const bool is_silent =
        turn.role == Role::kAssistant && std::ranges::all_of(turn.parts, is_thought);
    if (!is_silent) append_turn(kept, turn.role, std::move(turn.parts));
  }
  turns = std::move(kept);
}

void append_messages(std::vector<Turn>& turns, engine::Prompt& prompt) {
  drop_silent_turns(turns);
  sort_results(turns);
  CallNames names;
  for (Turn& turn : turns) {
    if (turn.role == Role::kAssistant) {
      prompt.messages.push_back(assistant_message(turn, names));
    } else {
      append_user(turn, names, prompt.messages);
    }
  }
  if (prompt.messages.empty() || prompt.messages.back().role != Role::kAssistant) return;
  engine::Message& last = prompt.messages.back();
  if (!last.calls.empty()) return;  // Calls without results: there is nothing to continue.
  const std::size_t end = last.text.find_last_not_of(" \t\r\n\v\f");
  last.text.erase(end == std::string::npos ? 0 : end + 1);
  prompt.continues_last = !last.text.empty();
  if (last.text.empty()) prompt.messages.pop_back();
}

/// Where a message is read.
struct Place {
  ToolList& tools;
  bool sees = false;
  bool is_before_user = false;  // Of a later message.
};

/// A system message that is shown for one turn only, once that is over.
bool is_over(const object& message, const Place& place) {
  const value* clear_at = find(message, "clear_at");
  return clear_at != nullptr && *clear_at == "next_user_message" && place.is_before_user;
}

std::expected<void, Refusal> append_message(const value& message, std::string_view raw,
                                            const Place& place, std::vector<Turn>& turns) {
  const object* members = message.if_object();
  if (members == nullptr) return std::unexpected(Refusal{"", "Input should be an object"});
  const auto role_value = require(*members, "role");
  if (!role_value) return std::unexpected(role_value.error());
  const std::optional<Role> role = role_from(**role_value);
  if (!role) {
    return std::unexpected(Refusal{"role", "Input should be 'user', 'assistant' or 'system'"});
  }
  const auto content = require(*members, "content");
  if (!content) return std::unexpected(content.error());
  const Reader reader{*role, place.tools, place.sees,
                      *role == Role::kSystem && is_over(*members, place)};
  auto parts = parse_content(**content, raw_member(raw, "content"), reader);
  if (!parts) return std::unexpected(within("content", parts.error()));
  for (Part& part : *parts) put_within("content", part);
  append_turn(turns, *role, *std::move(parts));
  return {};
}

/// Files are most of a prompt that has them; the worker reads each and keeps them for a while.
std::expected<void, Refusal> check_images(const std::vector<Turn>& turns) {
  std::size_t count = 0;
  std::size_t characters = 0;
  for (const Turn& turn : turns) {
    for (const Part& part : turn.parts) {
      count += part.images.size();
      for (const engine::Image& image : part.images) characters += image.base64.size();
    }
  }
  if (count > engine::kImagesMax) {
    return std::unexpected(Refusal{"messages", fmt::format("there are {} images; {} are the most",
                                                           count, engine::kImagesMax)});
  }
  if (characters <= engine::kImageCharactersMax) return {};
  return std::unexpected(Refusal{
      "messages", fmt::format("the images have {} bytes of base64 together; {} are the most",
                              characters, engine::kImageCharactersMax)});
}

/// The index of the last message that the user sent; 0 where there is none.
std::size_t last_of_user(const boost::json::array& messages) {
  std::size_t last = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const object* message = messages[i].if_object();
    const value* role = message == nullptr ? nullptr : find(*message, "role");
    if (role != nullptr && *role == "user") last = i;
  }
  return last;
}

std::expected<void, Refusal> read_messages(const object& body, std::string_view raw,
                                           ToolList& tools, bool sees, std::vector<Turn>& turns) {
  const auto list = require(body, "messages");
  if (!list) return std::unexpected(list.error());
  const boost::json::array* messages = (*list)->if_array();
  if (messages == nullptr) {
    return std::unexpected(Refusal{"messages", "Input should be a valid list"});
  }
  if (messages->empty()) {
    return std::unexpected(Refusal{"messages", "at least one message is required"});
  }
  const std::vector<std::string_view> raws = raw_elements(raw_member(raw, "messages"));
  PENSIEVE_CHECK(raws.size() == messages->size());
  const std::size_t last_user = last_of_user(*messages);
  for (std::size_t i = 0; i < messages->size(); ++i) {
    const std::size_t before = turns.size();
    const std::size_t parts_before = turns.empty() ? 0 : turns.back().parts.size();
    const auto appended =
        append_message((*messages)[i], raws[i], {tools, sees, i < last_user}, turns);
    if (!appended) return std::unexpected(within("messages", within(i, appended.error())));
    // What was added: to the last turn, or as a new one.
    if (turns.empty()) continue;
    std::vector<Part>& parts = turns.back().parts;
    for (std::size_t at = turns.size() == before ? parts_before : 0; at < parts.size(); ++at) {
      put_within(fmt::format("messages.{}", i), parts[at]);
    }
  }
  return check_images(turns);
}

}  // namespace

std::expected<engine::Prompt, Refusal> parse_prompt(const object& body, std::string_view raw,
                                                    bool sees) {
  engine::Prompt prompt;
  auto tools = parse_tools(body, raw);
  if (!tools) return std::unexpected(tools.error());
  prompt.tools = *std::move(tools);
  ToolList tool_list(prompt.tools);

  std::vector<Turn> turns;
  if (const value* system = find(body, "system")) {
    auto parts = parse_content(*system, raw_member(raw, "system"), {Role::kSystem, tool_list});
    if (!parts) return std::unexpected(within("system", parts.error()));
    append_turn(turns, Role::kSystem, *std::move(parts));
  }
  if (const auto read = read_messages(body, raw, tool_list, sees, turns); !read) {
    return std::unexpected(read.error());
  }
  append_messages(turns, prompt);
  const auto is_spoken = [](const engine::Message& m) { return m.role != Role::kSystem; };
  if (std::ranges::none_of(prompt.messages, is_spoken)) {
    return std::unexpected(
        Refusal{"messages", "at least one user or assistant message must have content"});
  }
  tool_list.drop_unavailable();
  auto rules = parse_answer_rules(body, raw, prompt.tools);
  if (!rules) return std::unexpected(rules.error());
  prompt.rules = *std::move(rules);
  return prompt;
}

}  // namespace pensieve::api
