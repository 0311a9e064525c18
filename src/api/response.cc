#include "api/response.h"

#include "api/json.h"

namespace pensieve::api {
namespace {

std::string event(std::string_view name, std::string_view data) {
  std::string out = "event: ";
  out += name;
  out += "\ndata: ";
  out += data;
  out += "\n\n";
  return out;
}

std::string indexed(std::string_view type, std::uint32_t index) {
  std::string out = R"({"type":")";
  out += type;
  out += R"(","index":)";
  append_json(out, index);
  return out;
}

/// Without its brace at the end.
void append_usage(std::string& out, const Usage& usage) {
  out += R"("usage":{"input_tokens":)";
  append_json(out, usage.input_tokens);
  out += R"(,"cache_creation_input_tokens":)";
  append_json(out, usage.cache_creation_input_tokens);
  out += R"(,"cache_read_input_tokens":)";
  append_json(out, usage.cache_read_input_tokens);
  out += R"(,"output_tokens":)";
  append_json(out, usage.output_tokens);
}

void append_final_usage(std::string& out, const Usage& usage) {
  append_usage(out, usage);
  out += R"(,"output_tokens_details":{"thinking_tokens":)";
  append_json(out, usage.thinking_tokens);
  out += "}}";
}

void append_stop(std::string& out, const Stop& stop) {
  out += R"("stop_reason":)";
  append_json(out, name(stop.reason));
  out += R"(,"stop_sequence":)";
  if (stop.sequence.empty()) {
    out += "null";
  } else {
    append_json(out, stop.sequence);
  }
}

/// A message up to and with `"content":[`.
std::string message_head(std::string_view id, std::string_view model) {
  std::string out = R"({"id":)";
  append_json(out, id);
  out += R"(,"type":"message","role":"assistant","model":)";
  append_json(out, model);
  out += R"(,"content":[)";
  return out;
}

/// `input` is a JSON object, or empty for one without members.
void append_tool_use(std::string& out, std::string_view type, std::string_view id,
                     std::string_view name, std::string_view input) {
  out += R"({"type":")";
  out += type;
  out += R"(","id":)";
  append_json(out, id);
  out += R"(,"name":)";
  append_json(out, name);
  out += R"(,"input":)";
  out += input.empty() ? std::string_view("{}") : input;
  out += '}';
}

void append_failed_search(std::string& out, std::string_view tool_use_id) {
  out += R"({"type":"web_search_tool_result","tool_use_id":)";
  append_json(out, tool_use_id);
  out += R"(,"content":{"type":"web_search_tool_result_error","error_code":"unavailable"}})";
}

void append_block(std::string& out, const AnswerBlock& block) {
  switch (block.kind) {
    case AnswerBlock::Kind::kText:
      out += R"({"type":"text","text":)";
      append_json(out, block.text);
      break;
    case AnswerBlock::Kind::kThinking:
      out += R"({"type":"thinking","thinking":)";
      append_json(out, block.text);
      out += R"(,"signature":)";
      append_json(out, block.signature);
      break;
    case AnswerBlock::Kind::kToolUse:
      append_tool_use(out, "tool_use", block.id, block.name, block.input);
      return;
    case AnswerBlock::Kind::kServerToolUse:
      append_tool_use(out, "server_tool_use", block.id, block.name, block.input);
      return;
    case AnswerBlock::Kind::kFailedSearch:
      append_failed_search(out, block.id);
      return;
  }
  out += '}';
}

/// A content_block_delta whose delta has one text member.
std::string delta_event(std::uint32_t index, std::string_view type, std::string_view member,
                        std::string_view text) {
  std::string data = indexed("content_block_delta", index);
  data += R"(,"delta":{"type":")";
  data += type;
  data += R"(",")";
  data += member;
  data += R"(":)";
  append_json(data, text);
  data += "}}";
  return event("content_block_delta", data);
}

/// `block` is the JSON of the empty block.
std::string block_start_event(std::uint32_t index, std::string_view block) {
  std::string data = indexed("content_block_start", index);
  data += R"(,"content_block":)";
  data += block;
  data += '}';
  return event("content_block_start", data);
}

}  // namespace

std::string_view name(StopReason reason) {
  switch (reason) {
    case StopReason::kEndTurn:
      return "end_turn";
    case StopReason::kToolUse:
      return "tool_use";
    case StopReason::kMaxTokens:
      return "max_tokens";
    case StopReason::kStopSequence:
      return "stop_sequence";
    case StopReason::kContextWindowExceeded:
      return "model_context_window_exceeded";
  }
  return "end_turn";
}

std::string message_body(std::string_view id, std::string_view model,
                         std::span<const AnswerBlock> blocks, const Stop& stop,
                         const Usage& usage) {
  std::string out = message_head(id, model);
  const std::size_t empty = out.size();
  for (const AnswerBlock& block : blocks) {
    const bool is_said =
        block.kind == AnswerBlock::Kind::kText || block.kind == AnswerBlock::Kind::kThinking;
    if (is_said && block.text.empty() && block.signature.empty()) continue;
    if (out.size() > empty) out += ',';
    append_block(out, block);
  }
  out += "],";
  append_stop(out, stop);
  out += ',';
  append_final_usage(out, usage);
  out += '}';
  return out;
}

std::string message_start_event(std::string_view id, std::string_view model, const Usage& usage) {
  std::string data = R"({"type":"message_start","message":)";
  data += message_head(id, model);
  data += R"(],"stop_reason":null,"stop_sequence":null,)";
  Usage at_start = usage;
  at_start.output_tokens = 1;
  append_usage(data, at_start);
  data += "}}}";
  return event("message_start", data);
}

std::string ping_event() {
  return event("ping", R"({"type":"ping"})");
}

std::string text_block_start_event(std::uint32_t index) {
  return block_start_event(index, R"({"type":"text","text":""})");
}

std::string text_delta_event(std::uint32_t index, std::string_view text) {
  return delta_event(index, "text_delta", "text", text);
}

std::string thinking_block_start_event(std::uint32_t index) {
  return block_start_event(index, R"({"type":"thinking","thinking":"","signature":""})");
}

std::string thinking_delta_event(std::uint32_t index, std::string_view thinking) {
  return delta_event(index, "thinking_delta", "thinking", thinking);
}

std::string signature_delta_event(std::uint32_t index, std::string_view signature) {
  return delta_event(index, "signature_delta", "signature", signature);
}

std::string tool_use_block_start_event(std::uint32_t index, std::string_view id,
                                       std::string_view name) {
  std::string block;
  append_tool_use(block, "tool_use", id, name, {});
  return block_start_event(index, block);
}

std::string server_tool_use_block_start_event(std::uint32_t index, std::string_view id,
                                              std::string_view name) {
  std::string block;
  append_tool_use(block, "server_tool_use", id, name, {});
  return block_start_event(index, block);
}

std::string failed_search_block_start_event(std::uint32_t index, std::string_view tool_use_id) {
  std::string block;
  append_failed_search(block, tool_use_id);
  return block_start_event(index, block);
}

std::string input_json_delta_event(std::uint32_t index, std::string_view json) {
  return delta_event(index, "input_json_delta", "partial_json", json);
}

std::string block_stop_event(std::uint32_t index) {
  return event("content_block_stop", indexed("content_block_stop", index) + "}");
}

std::string message_delta_event(const Stop& stop, const Usage& usage) {
  std::string data = R"({"type":"message_delta","delta":{)";
  append_stop(data, stop);
  data += "},";
  append_final_usage(data, usage);
  data += '}';
  return event("message_delta", data);
}

std::string message_stop_event() {
  return event("message_stop", R"({"type":"message_stop"})");
}

std::string error_event(const ApiError& error, std::string_view request_id) {
  return event("error", error_body(error, request_id));
}

std::string count_tokens_body(std::uint32_t input_tokens) {
  std::string out = R"({"input_tokens":)";
  append_json(out, input_tokens);
  out += '}';
  return out;
}

}  // namespace pensieve::api
