#include "api/chat_response.h"

#include "api/json.h"

namespace pensieve::api {
namespace {

std::string frame(std::string_view data) {
  std::string out = "data: ";
  out += data;
  out += "\n\n";
  return out;
}

std::string quoted(std::string_view text) {
  std::string out;
  append_json(out, text);
  return out;
}

std::string_view finish_reason(StopReason reason) {
  switch (reason) {
    case StopReason::kEndTurn:
    case StopReason::kStopSequence:
      return R"("stop")";
    case StopReason::kToolUse:
      return R"("tool_calls")";
    case StopReason::kMaxTokens:
    case StopReason::kContextWindowExceeded:
      break;
  }
  return R"("length")";
}

/// OpenAI counts what came from the cache as part of the prompt.
std::string usage_object(const Usage& usage) {
  const std::uint64_t prompt = std::uint64_t{usage.input_tokens} +
                               usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
  std::string out = R"({"prompt_tokens":)";
  append_json(out, prompt);
  out += R"(,"completion_tokens":)";
  append_json(out, usage.output_tokens);
  out += R"(,"total_tokens":)";
  append_json(out, prompt + usage.output_tokens);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  append_json(out, usage.cache_read_input_tokens);
  out += R"(},"completion_tokens_details":{"reasoning_tokens":)";
  append_json(out, usage.thinking_tokens);
  return out + "}}";
}

std::string call_object(const AnswerBlock& block) {
  return R"({"id":)" + quoted(block.id) + R"(,"type":"function","function":{"name":)" +
         quoted(block.name) + R"(,"arguments":)" + quoted(block.input) + "}}";
}

}  // namespace

ChatFormat::ChatFormat(WallTime created, bool include_usage)
    : id_(new_id("chatcmpl-")),
      created_(created.time_since_epoch().count()),
      include_usage_(include_usage) {}

std::string ChatFormat::head(std::string_view object) const {
  std::string out = R"({"id":)" + quoted(id_) + R"(,"object":)" + quoted(object);
  out += R"(,"created":)";
  append_json(out, static_cast<std::uint64_t>(created_));
  out += R"(,"model":)" + quoted(model_);
  return out;
}

std::string ChatFormat::whole(std::string_view model, std::span<const AnswerBlock> blocks,
                              const Stop& stop, const Usage& usage) {
  model_ = model;
  std::string text;
  std::string thinking;
  std::string calls;
  for (const AnswerBlock& block : blocks) {
    if (block.kind == AnswerBlock::Kind::kText) text += block.text;
    if (block.kind == AnswerBlock::Kind::kThinking) thinking += block.text;
    if (block.kind != AnswerBlock::Kind::kToolUse) continue;
    if (!calls.empty()) calls += ',';
    calls += call_object(block);
  }
  const bool only_calls = text.empty() && !calls.empty();
  std::string out = head("chat.completion");
  out += R"(,"choices":[{"index":0,"message":{"role":"assistant","content":)";
  out += only_calls ? "null" : quoted(text);
  out += R"(,"refusal":null)";
  if (!thinking.empty()) out += R"(,"reasoning_content":)" + quoted(thinking);
  if (!calls.empty()) out += R"(,"tool_calls":[)" + calls + "]";
  out += R"(},"logprobs":null,"finish_reason":)";
  out += finish_reason(stop.reason);
  out += R"(}],"usage":)" + usage_object(usage);
  return out + '}';
}

std::string ChatFormat::chunk(std::string_view delta, std::string_view reason) const {
  std::string out = head("chat.completion.chunk");
  out += R"(,"choices":[{"index":0,"delta":)";
  out += delta;
  out += R"(,"logprobs":null,"finish_reason":)";
  out += reason;
  out += "}]";
  if (include_usage_) out += R"(,"usage":null)";
  return frame(out + "}");
}

std::string ChatFormat::whole_error(const ApiError& error, std::string_view) {
  return chat_error_body(error);
}

std::string ChatFormat::start(std::string_view model, const Usage&) {
  model_ = model;
  return chunk(R"({"role":"assistant","content":""})", "null");
}

/// A comment: clients skip it, and their connection is not idle.
std::string ChatFormat::ping() {
  return ": ping\n\n";
}

std::string ChatFormat::block_start(std::uint32_t, const AnswerBlock& block) {
  if (block.kind != AnswerBlock::Kind::kToolUse) return {};
  std::string delta = R"({"tool_calls":[{"index":)";
  append_json(delta, calls_++);
  delta += R"(,"id":)" + quoted(block.id) + R"(,"type":"function","function":{"name":)" +
           quoted(block.name) + R"(,"arguments":""}}]})";
  return chunk(delta, "null");
}

std::string ChatFormat::block_delta(std::uint32_t, AnswerBlock::Kind kind, std::string_view text) {
  switch (kind) {
    case AnswerBlock::Kind::kText:
      return chunk(R"({"content":)" + quoted(text) + "}", "null");
    case AnswerBlock::Kind::kThinking:
      return chunk(R"({"reasoning_content":)" + quoted(text) + "}", "null");
    case AnswerBlock::Kind::kServerToolUse:
    case AnswerBlock::Kind::kFailedSearch:
      return {};  // This face has no such tools.
    case AnswerBlock::Kind::kToolUse:
      break;
  }
  std::string delta = R"({"tool_calls":[{"index":)";
  append_json(delta, calls_ - 1);
  delta += R"(,"function":{"arguments":)" + quoted(text) + "}}]}";
  return chunk(delta, "null");
}

std::string ChatFormat::block_stop(std::uint32_t) {
  return {};
}

std::string ChatFormat::end(const Stop& stop, const Usage& usage) {
  std::string out = chunk("{}", finish_reason(stop.reason));
  if (include_usage_) {
    out += frame(head("chat.completion.chunk") + R"(,"choices":[],"usage":)" + usage_object(usage) +
                 "}");
  }
  return out + frame("[DONE]");
}

/// Clients raise it where they meet it. No [DONE] follows: the answer is not done.
std::string ChatFormat::error(const ApiError& error, std::string_view) {
  return frame(chat_error_body(error));
}

std::string chat_error_body(const ApiError& error) {
  std::string out = R"({"error":{"message":)" + quoted(error.message) + R"(,"type":)" +
                    quoted(error.type) + R"(,"param":null,"code":)";
  out += error.error_code.empty() ? "null" : quoted(error.error_code);
  return out + "}}";
}

}  // namespace pensieve::api
