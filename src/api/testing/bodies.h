// Request bodies as real clients send them, and short ways to look at what became of them.
#pragma once

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "api/messages.h"
#include "engine/tool_text.h"

namespace pensieve::api {

/// The second turn of Claude Code: billing line, system messages in the middle and at the end,
/// results in the order of completion, thinking sent back, fields that a server may not know.
inline constexpr std::string_view kClaudeCodeBody = R"json({
"model":"qwen3-local",
"messages":[
 {"role":"user","content":[
  {"type":"text","text":"<system-reminder>\nCLAUDE.md\n</system-reminder>"},
  {"type":"text","text":"List the files","cache_control":{"type":"ephemeral"}}]},
 {"role":"system","content":"Today is Monday."},
 {"role":"assistant","content":[
  {"type":"thinking","thinking":"Three calls.","signature":""},
  {"type":"text","text":"I look."},
  {"type":"tool_use","id":"toolu_1","name":"Bash","input":{"command":"ls", "timeout":1.0}},
  {"type":"tool_use","id":"toolu_2","name":"Read","input":{"file_path":"/a\/b","limit":100}},
  {"type":"tool_use","id":"toolu_3","name":"ToolSearch","input":{}}]},
 {"role":"user","content":[
  {"tool_use_id":"toolu_2","type":"tool_result","content":[
   {"type":"text","text":"1: x"},
   {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]},
  {"type":"tool_result","content":[{"type":"tool_reference","tool_name":"WebFetch"}],
   "tool_use_id":"toolu_3"},
  {"tool_use_id":"toolu_1","type":"tool_result","content":"a.txt","is_error":false,
   "cache_control":{"type":"ephemeral","ttl":"1h"}}]},
 {"role":"system","content":[
  {"type":"tool_addition","tool":{"name":"WebFetch"}},
  {"type":"text","text":"A new skill is there."}],"output_config":{"effort":"high"}}],
"system":[
 {"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330.572; cc_entrypoint=cli;"},
 {"type":"text","text":"You are a Claude agent.","cache_control":{"type":"ephemeral"}},
 {"type":"text","text":"\nYou are an agent ...","cache_control":{"type":"ephemeral"}}],
"tools":[{"name":"Bash","description":"Runs","input_schema":{"type":"object","properties":{}}},
 {"name":"WebFetch","defer_loading":true,"input_schema":{}},
 {"type":"web_search_20250305","name":"web_search","max_uses":8}],
"tool_choice":{"type":"auto"},
"metadata":{"user_id":"{\"device_id\":\"00\",\"account_uuid\":\"\",\"session_id\":\"1\"}"},
"max_tokens":32000,
"thinking":{"type":"adaptive","display":"omitted"},
"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},
"output_config":{"effort":"high"},
"safeguards":[{"type":"dangerous_tool_use","classifier_context":{}}],
"stream":true})json";

/// One line per message, "u: text", and "..." at the end where the last one is continued.
inline std::string shown(engine::Prompt prompt) {
  constexpr std::string_view kRoles = "sua";
  std::string out;
  prompt.tools.clear();  // The offer has tests of its own.
  for (const engine::Message& message : engine::with_tools_as_text(prompt).messages) {
    out += kRoles[static_cast<std::size_t>(message.role)];
    out += ": " + message.text + "\n";
  }
  return prompt.continues_last ? out + "..." : out;
}

/// What becomes of a body with these `messages` (a JSON list) and further `members`.
inline std::expected<MessagesRequest, ApiError> parse_with(std::string_view messages,
                                                           std::string_view members = "") {
  std::string body = R"({"model":"m","max_tokens":10,"messages":)";
  body += messages;
  if (!members.empty()) body += ",";
  body += members;
  body += "}";
  return parse_messages_request(body);
}

/// The prompt of these messages, or the refusal.
inline std::string prompt_of(std::string_view messages, std::string_view members = "") {
  const auto request = parse_with(messages, members);
  return request ? shown(request->prompt) : "refused: " + request.error().message;
}

inline std::string refusal_of(const std::expected<MessagesRequest, ApiError>& request) {
  if (request) return "accepted";
  EXPECT_EQ(request.error().status, 400U);
  EXPECT_EQ(request.error().type, "invalid_request_error");
  return request.error().message;
}

}  // namespace pensieve::api
