#include "api/response.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::api {
namespace {

constexpr Usage kUsage{.input_tokens = 1234,
                       .cache_creation_input_tokens = 5,
                       .cache_read_input_tokens = 9000,
                       .output_tokens = 57,
                       .thinking_tokens = 20};

TEST(EventTest, MessageStartHasTheExactShape) {
  EXPECT_EQ(message_start_event("msg_1", "qwen/3:\"x\"", kUsage),
            "event: message_start\n"
            R"(data: {"type":"message_start","message":{"id":"msg_1","type":"message",)"
            R"("role":"assistant","model":"qwen/3:\"x\"","content":[],"stop_reason":null,)"
            R"("stop_sequence":null,"usage":{"input_tokens":1234,"cache_creation_input_tokens":5,)"
            R"("cache_read_input_tokens":9000,"output_tokens":1}}})"
            "\n\n");
}

TEST(EventTest, PingHasTheExactShape) {
  EXPECT_EQ(ping_event(), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

TEST(EventTest, ATextBlockHasTheExactShapes) {
  EXPECT_EQ(text_block_start_event(0),
            "event: content_block_start\n"
            R"(data: {"type":"content_block_start","index":0,)"
            R"("content_block":{"type":"text","text":""}})"
            "\n\n");
  EXPECT_EQ(text_delta_event(4294967295U, "Hello"),
            "event: content_block_delta\n"
            R"(data: {"type":"content_block_delta","index":4294967295,)"
            R"("delta":{"type":"text_delta","text":"Hello"}})"
            "\n\n");
  EXPECT_EQ(block_stop_event(2),
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":2}\n\n");
}

TEST(EventTest, AFailedSearchHasTheExactShapes) {
  EXPECT_EQ(server_tool_use_block_start_event(0, "srvtoolu_1", "web_search"),
            "event: content_block_start\n"
            R"(data: {"type":"content_block_start","index":0,"content_block":)"
            R"({"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}})"
            "\n\n");
  EXPECT_EQ(failed_search_block_start_event(1, "srvtoolu_1"),
            "event: content_block_start\n"
            R"(data: {"type":"content_block_start","index":1,"content_block":)"
            R"({"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":)"
            R"({"type":"web_search_tool_result_error","error_code":"unavailable"}}})"
            "\n\n");
}

TEST(EventTest, ADeltaNeverBreaksItsLine) {
  const std::string event = text_delta_event(0, "a\n\nb\r\"\\\t\x01 \xF0\x9F\x98\x80 \xE2\x80\xA8");
  EXPECT_EQ(event,
            "event: content_block_delta\n"
            R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":)"
            R"("a\n\nb\r\"\\\t\u0001 )"
            "\xF0\x9F\x98\x80 \xE2\x80\xA8\"}}\n\n");
  EXPECT_EQ(std::ranges::count(event, '\n'), 3);
  EXPECT_EQ(std::ranges::count(event, '\r'), 0);
}

TEST(EventTest, MessageDeltaHasTheExactShape) {
  EXPECT_EQ(message_delta_event({.reason = StopReason::kEndTurn, .sequence = {}}, kUsage),
            "event: message_delta\n"
            R"(data: {"type":"message_delta","delta":{"stop_reason":"end_turn",)"
            R"("stop_sequence":null},"usage":{"input_tokens":1234,)"
            R"("cache_creation_input_tokens":5,"cache_read_input_tokens":9000,)"
            R"("output_tokens":57,"output_tokens_details":{"thinking_tokens":20}}})"
            "\n\n");
  EXPECT_EQ(
      message_delta_event({.reason = StopReason::kStopSequence, .sequence = "\n\nHuman:"}, {}),
      "event: message_delta\n"
      R"(data: {"type":"message_delta","delta":{"stop_reason":"stop_sequence",)"
      R"("stop_sequence":"\n\nHuman:"},"usage":{"input_tokens":0,)"
      R"("cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0,)"
      R"("output_tokens_details":{"thinking_tokens":0}}})"
      "\n\n");
}

TEST(EventTest, MessageStopHasTheExactShape) {
  EXPECT_EQ(message_stop_event(), "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

TEST(EventTest, AnErrorIsTheErrorBodyAsAnEvent) {
  EXPECT_EQ(error_event(internal("worker died"), "req_1"),
            "event: error\n"
            R"(data: {"type":"error","error":{"type":"api_error","message":"worker died"},)"
            R"("request_id":"req_1"})"
            "\n\n");
}

TEST(MessageBodyTest, HasTheExactShape) {
  const AnswerBlock blocks[] = {{AnswerBlock::Kind::kText, "Hi \"you\"\n"}};
  EXPECT_EQ(message_body("msg_1", "m", blocks, {StopReason::kMaxTokens, {}}, kUsage),
            R"({"id":"msg_1","type":"message","role":"assistant","model":"m",)"
            R"("content":[{"type":"text","text":"Hi \"you\"\n"}],"stop_reason":"max_tokens",)"
            R"("stop_sequence":null,"usage":{"input_tokens":1234,"cache_creation_input_tokens":5,)"
            R"("cache_read_input_tokens":9000,"output_tokens":57,)"
            R"("output_tokens_details":{"thinking_tokens":20}}})");
}

TEST(MessageBodyTest, HasNoBlockWithoutText) {
  EXPECT_NE(message_body("msg_1", "m", {}, {}, {}).find(R"("content":[],)"), std::string::npos);
}

TEST(MessageBodyTest, ThinkingAndToolUseAreBlocks) {
  const AnswerBlock blocks[] = {{AnswerBlock::Kind::kThinking, "hm", "", "", "", "c2ln"},
                                {AnswerBlock::Kind::kThinking, "", "", "", "", "c2ln"},
                                {AnswerBlock::Kind::kThinking, ""},
                                {AnswerBlock::Kind::kText, ""},
                                {AnswerBlock::Kind::kToolUse, "", "toolu_1", "f", R"({"x":1.0})"}};
  EXPECT_NE(message_body("msg_1", "m", blocks, {StopReason::kToolUse, {}}, {})
                .find(R"("content":[{"type":"thinking","thinking":"hm","signature":"c2ln"},)"
                      R"({"type":"thinking","thinking":"","signature":"c2ln"},)"
                      R"({"type":"tool_use","id":"toolu_1","name":"f","input":{"x":1.0}}],)"
                      R"("stop_reason":"tool_use")"),
            std::string::npos);
}

TEST(EventTest, AToolUseBlockHasTheExactShapes) {
  EXPECT_EQ(tool_use_block_start_event(1, "toolu_1", "Bash"),
            "event: content_block_start\n"
            R"(data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use",)"
            R"("id":"toolu_1","name":"Bash","input":{}}})"
            "\n\n");
  EXPECT_EQ(input_json_delta_event(1, "{\"a\""),
            "event: content_block_delta\n"
            R"(data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta",)"
            R"("partial_json":"{\"a\""}})"
            "\n\n");
}

TEST(EventTest, AThinkingBlockHasTheExactShapes) {
  EXPECT_EQ(thinking_block_start_event(0),
            "event: content_block_start\n"
            R"(data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking",)"
            R"("thinking":"","signature":""}})"
            "\n\n");
  EXPECT_EQ(thinking_delta_event(0, "hm"),
            "event: content_block_delta\n"
            R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta",)"
            R"("thinking":"hm"}})"
            "\n\n");
}

TEST(StopReasonTest, HasTheApisNames) {
  EXPECT_EQ(name(StopReason::kEndTurn), "end_turn");
  EXPECT_EQ(name(StopReason::kMaxTokens), "max_tokens");
  EXPECT_EQ(name(StopReason::kStopSequence), "stop_sequence");
  EXPECT_EQ(name(StopReason::kContextWindowExceeded), "model_context_window_exceeded");
}

TEST(CountTokensBodyTest, IsOneInteger) {
  EXPECT_EQ(count_tokens_body(0), R"({"input_tokens":0})");
  EXPECT_EQ(count_tokens_body(4294967295U), R"({"input_tokens":4294967295})");
}

TEST(NewIdTest, IsThePrefixAndTwentyFourLettersOrDigits) {
  const std::string id = new_id("msg_");
  ASSERT_EQ(id.size(), 28U);
  EXPECT_TRUE(id.starts_with("msg_"));
  for (const char c : id.substr(4)) EXPECT_TRUE(std::isalnum(static_cast<unsigned char>(c)) != 0);
}

TEST(NewIdTest, NeverRepeatsAcrossThreads) {
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kIdsEach = 2000;
  std::vector<std::vector<std::string>> ids(kThreads);
  {
    std::vector<std::jthread> threads;
    for (std::vector<std::string>& own : ids) {
      threads.emplace_back([&own] {
        for (std::size_t i = 0; i < kIdsEach; ++i) own.push_back(new_id("req_"));
      });
    }
  }
  std::set<std::string> unique;
  for (const auto& own : ids) unique.insert(own.begin(), own.end());
  EXPECT_EQ(unique.size(), kThreads * kIdsEach);
}

}  // namespace
}  // namespace pensieve::api
