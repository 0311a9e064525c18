#include "engine/tool_text.h"

#include <utility>

#include <fmt/format.h>

namespace pensieve::engine {
namespace {

constexpr std::string_view kOfferHead =
    "# Tools\n\n"
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n"
    "<tools>";
constexpr std::string_view kOfferTail =
    "\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n"
    "<tool_call>\n"
    "{\"name\":<function-name>,\"arguments\":<args-json-object>}\n"
    "</tool_call>";

void append_line(std::string& text, std::string_view line) {
  if (line.empty()) return;
  if (!text.empty()) text += '\n';
  text += line;
}

/// Empty where no tool is shown.
std::string offer(const Prompt& prompt) {
  std::string lines;
  for (const Tool& tool : prompt.tools) {
    if (tool.shown) lines += '\n' + tool_line(tool);
  }
  if (lines.empty() || prompt.rules.tool_choice == ToolChoice::kNone) return {};
  return fmt::format("{}{}{}", kOfferHead, lines, kOfferTail);
}

std::string text_of(const Message& message) {
  if (message.role == Role::kTool) {
    return fmt::format("<tool_response>\n{}\n</tool_response>", message.text);
  }
  std::string text = message.text;
  for (const ToolCall& call : message.calls) append_line(text, call_text(call));
  return text;
}

}  // namespace

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  out += '"';
  return out;
}

std::string call_text(const ToolCall& call) {
  return fmt::format("{}{}{}{}{}", kCallBegin, json_string(call.name), kCallArguments,
                     call.arguments, kCallEnd);
}

std::string tool_line(const Tool& tool) {
  return fmt::format(
      R"({{"type":"function","function":{{"name":{},"description":{},"parameters":{}}}}})",
      json_string(tool.name), json_string(tool.description), tool.parameters);
}

Prompt with_tools_as_text(const Prompt& prompt) {
  Prompt plain;
  plain.continues_last = prompt.continues_last;
  plain.rules.thinking_tokens_max = prompt.rules.thinking_tokens_max;
  plain.rules.effort = prompt.rules.effort;
  const std::string offered = offer(prompt);
  bool told = offered.empty();
  if (!told && (prompt.messages.empty() || prompt.messages.front().role != Role::kSystem)) {
    plain.messages.push_back({Role::kSystem, offered});
    told = true;
  }
  for (const Message& message : prompt.messages) {
    const Role role = message.role == Role::kTool ? Role::kUser : message.role;
    std::string text = text_of(message);
    if (!told) {
      text += "\n\n" + offered;
      told = true;
    }
    const bool merges =
        !plain.messages.empty() && plain.messages.back().role == role && role != Role::kSystem;
    if (merges) {
      append_line(plain.messages.back().text, text);
      append_line(plain.messages.back().thinking, message.thinking);
    } else {
      plain.messages.push_back({role, std::move(text), message.thinking});
    }
  }
  return plain;
}

}  // namespace pensieve::engine
