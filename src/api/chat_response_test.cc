// Answers as OpenAI's clients read them, to the byte.
#include "api/chat_response.h"

#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::api {
namespace {

using Kind = AnswerBlock::Kind;

constexpr Usage kUsage{.input_tokens = 3,
                       .cache_creation_input_tokens = 1,
                       .cache_read_input_tokens = 4,
                       .output_tokens = 5,
                       .thinking_tokens = 2};

ChatFormat format(bool include_usage = false) {
  return {WallTime(std::chrono::seconds(1700000000)), include_usage};
}

std::string without_id(const std::string& text) {
  return std::regex_replace(text, std::regex("chatcmpl-[0-9A-Za-z]{24}"), "ID");
}

/// A chunk of model "m" with this delta and finish reason.
std::string chunk(std::string_view delta, std::string_view finish = "null",
                  std::string_view usage = "") {
  std::string out =
      R"(data: {"id":"ID","object":"chat.completion.chunk","created":1700000000,"model":"m",)"
      R"("choices":[{"index":0,"delta":)";
  out += delta;
  out += R"(,"logprobs":null,"finish_reason":)";
  out += finish;
  out += "}]";
  out += usage;
  return out + "}\n\n";
}

constexpr std::string_view kUsageText =
    R"("usage":{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13,)"
    R"("prompt_tokens_details":{"cached_tokens":4},)"
    R"("completion_tokens_details":{"reasoning_tokens":2}})";

AnswerBlock call(std::string name, std::string input) {
  AnswerBlock block{.kind = Kind::kToolUse, .text = {}};
  block.id = "toolu_1";
  block.name = std::move(name);
  block.input = std::move(input);
  return block;
}

TEST(ChatFormatTest, AWholeAnswerHasOneChoice) {
  const std::vector<AnswerBlock> blocks{{.kind = Kind::kThinking, .text = "hm"},
                                        {.kind = Kind::kText, .text = "a\n"},
                                        {.kind = Kind::kText, .text = "b"}};
  EXPECT_EQ(without_id(format().whole("m", blocks, {StopReason::kEndTurn, ""}, kUsage)),
            R"({"id":"ID","object":"chat.completion","created":1700000000,"model":"m","choices":)"
            R"([{"index":0,"message":{"role":"assistant","content":"a\nb","refusal":null,)"
            R"("reasoning_content":"hm"},"logprobs":null,"finish_reason":"stop"}],)" +
                std::string(kUsageText) + "}");
}

TEST(ChatFormatTest, CallsOfAWholeAnswerAreToolCalls) {
  const std::vector<AnswerBlock> blocks{call("f", R"({"a":"x"})"), call("g", "{}")};
  const std::string body = format().whole("m", blocks, {StopReason::kToolUse, ""}, kUsage);
  EXPECT_NE(
      body.find(R"("content":null,"refusal":null,"tool_calls":[{"id":"toolu_1","type":"function",)"
                R"("function":{"name":"f","arguments":"{\"a\":\"x\"}"}},{"id":"toolu_1","type":)"
                R"("function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,)"
                R"("finish_reason":"tool_calls")"),
      std::string::npos)
      << body;
}

TEST(ChatFormatTest, AnEmptyAnswerHasAnEmptyContent) {
  const std::string body = format().whole("m", {}, {StopReason::kEndTurn, ""}, kUsage);
  EXPECT_NE(body.find(R"("content":"","refusal":null})"), std::string::npos) << body;
}

TEST(ChatFormatTest, EachWayToStopHasItsReason) {
  const auto reason = [](StopReason stop) {
    const std::string body = format().whole("m", {}, {stop, "x"}, kUsage);
    const std::size_t at = body.find(R"("finish_reason":)") + 16;
    return body.substr(at, body.find('}', at) - at);
  };
  EXPECT_EQ(reason(StopReason::kEndTurn), R"("stop")");
  EXPECT_EQ(reason(StopReason::kStopSequence), R"("stop")");
  EXPECT_EQ(reason(StopReason::kMaxTokens), R"("length")");
  EXPECT_EQ(reason(StopReason::kContextWindowExceeded), R"("length")");
  EXPECT_EQ(reason(StopReason::kToolUse), R"("tool_calls")");
}

TEST(ChatFormatTest, AStreamIsChunksAndDone) {
  ChatFormat chat = format();
  EXPECT_EQ(without_id(chat.start("m", kUsage)), chunk(R"({"role":"assistant","content":""})"));
  EXPECT_EQ(chat.ping(), ": ping\n\n");
  EXPECT_EQ(chat.block_start(0, {.kind = Kind::kThinking, .text = {}}), "");
  EXPECT_EQ(without_id(chat.block_delta(0, Kind::kThinking, "hm")),
            chunk(R"({"reasoning_content":"hm"})"));
  EXPECT_EQ(chat.block_stop(0), "");
  EXPECT_EQ(chat.block_start(1, {.kind = Kind::kText, .text = {}}), "");
  EXPECT_EQ(without_id(chat.block_delta(1, Kind::kText, "a\"")), chunk(R"({"content":"a\""})"));
  EXPECT_EQ(without_id(chat.end({StopReason::kEndTurn, ""}, kUsage)),
            chunk("{}", R"("stop")") + "data: [DONE]\n\n");
}

TEST(ChatFormatTest, CallsOfAStreamAreCountedByThemselves) {
  ChatFormat chat = format();
  chat.start("m", kUsage);
  const auto start = [](int index, const std::string& name) {
    return chunk(R"({"tool_calls":[{"index":)" + std::to_string(index) +
                 R"(,"id":"toolu_1","type":"function","function":{"name":")" + name +
                 R"(","arguments":""}}]})");
  };
  EXPECT_EQ(without_id(chat.block_start(2, call("f", ""))), start(0, "f"));
  EXPECT_EQ(without_id(chat.block_delta(2, Kind::kToolUse, R"({"a")")),
            chunk(R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]})"));
  EXPECT_EQ(chat.block_stop(2), "");
  EXPECT_EQ(without_id(chat.block_start(3, call("g", ""))), start(1, "g"));
  EXPECT_EQ(without_id(chat.block_delta(3, Kind::kToolUse, "{}")),
            chunk(R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})"));
}

TEST(ChatFormatTest, UsageIsInAChunkOfItsOwnWhereItIsAskedFor) {
  ChatFormat chat = format(true);
  EXPECT_EQ(without_id(chat.start("m", kUsage)),
            chunk(R"({"role":"assistant","content":""})", "null", R"(,"usage":null)"));
  EXPECT_EQ(without_id(chat.end({StopReason::kMaxTokens, ""}, kUsage)),
            chunk("{}", R"("length")", R"(,"usage":null)") +
                R"(data: {"id":"ID","object":"chat.completion.chunk","created":1700000000,)"
                R"("model":"m","choices":[],)" +
                std::string(kUsageText) + "}\n\ndata: [DONE]\n\n");
}

TEST(ChatFormatTest, AnErrorInAStreamIsItsEndWithoutDone) {
  EXPECT_EQ(format().error(internal("no"), "req_1"),
            "data: {\"error\":{\"message\":\"no\",\"type\":\"api_error\",\"param\":null,"
            "\"code\":null}}\n\n");
}

TEST(ChatFormatTest, IdsAreNew) {
  EXPECT_NE(format().id(), format().id());
}

}  // namespace
}  // namespace pensieve::api
