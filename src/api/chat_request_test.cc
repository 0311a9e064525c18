// OpenAI's request becomes the one that the same conversation gives on /v1/messages.
#include "api/chat_request.h"

#include <string>
#include <string_view>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

std::expected<ChatRequest, ApiError> parse(std::string_view messages,
                                           std::string_view members = "") {
  std::string body = R"({"model":"m","messages":)";
  body += messages;
  if (!members.empty()) body += ",";
  body += members;
  return parse_chat_request(body + "}");
}

constexpr std::string_view kHi = R"([{"role":"user","content":"hi"}])";

std::string refusal(std::string_view messages, std::string_view members = "") {
  const auto request = parse(messages, members);
  if (request) return "accepted";
  EXPECT_EQ(request.error().status, 400U);
  return request.error().message;
}

std::string prompt(std::string_view messages) {
  const auto request = parse(messages);
  return request ? shown(request->messages.prompt) : "refused: " + request.error().message;
}

engine::Prompt engine_prompt(std::string_view messages) {
  const auto request = parse(messages);
  EXPECT_TRUE(request) << request.error().message;
  return request ? request->messages.prompt : engine::Prompt();
}

MessagesRequest accepted(std::string_view members) {
  auto request = parse(kHi, members);
  EXPECT_TRUE(request) << request.error().message;
  return request ? request->messages : MessagesRequest();
}

TEST(ChatRequestTest, AConversationIsTheOneOfTheMessagesApi) {
  EXPECT_EQ(prompt(R"([{"role":"system","content":"Be brief."},
                       {"role":"developer","content":[{"type":"text","text":"Really."}]},
                       {"role":"user","content":[{"type":"text","text":"one"},
                                                 {"type":"text","text":"two"}]},
                       {"role":"assistant","content":"yes"},
                       {"role":"user","content":"more"}])"),
            prompt_of(R"([{"role":"user","content":"one\ntwo"},
                          {"role":"assistant","content":"yes"},
                          {"role":"user","content":"more"}])",
                      R"("system":"Be brief.\nReally.")"));
  EXPECT_EQ(prompt(R"([{"role":"user","content":"a \"quote\" and \u00e4"}])"),
            "u: a \"quote\" and \xC3\xA4\n");
}

TEST(ChatRequestTest, CallsAndTheirResultsAreTheOnesOfTheMessagesApi) {
  EXPECT_EQ(prompt(R"([{"role":"user","content":"go"},
                 {"role":"assistant","content":null,"tool_calls":[
                   {"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 1.0}"}},
                   {"id":"2","type":"function","function":{"name":"g","arguments":""}}]},
                 {"role":"tool","tool_call_id":"1","content":"one"},
                 {"role":"tool","tool_call_id":"2","content":[{"type":"text","text":"two"}]}])"),
            prompt_of(R"([{"role":"user","content":"go"},
                    {"role":"assistant","content":[
                      {"type":"tool_use","id":"1","name":"f","input":{"a": 1.0}},
                      {"type":"tool_use","id":"2","name":"g","input":{}}]},
                    {"role":"user","content":[
                      {"type":"tool_result","tool_use_id":"1","content":"one"},
                      {"type":"tool_result","tool_use_id":"2","content":"two"}]}])"));
}

TEST(ChatRequestTest, ArgumentsThatWereCutOffDoNotEndTheConversation) {
  for (const char* cut : {R"({\"city\":\"Rome)", "[1]", "null"}) {
    const auto prompt = engine_prompt(fmt::format(
        R"([{{"role":"user","content":"go"}},{{"role":"assistant","tool_calls":[)"
        R"({{"id":"1","type":"function","function":{{"name":"f","arguments":"{}"}}}}]}}])",
        cut));
    EXPECT_EQ(prompt.messages.at(1).calls.at(0).arguments,
              fmt::format(R"({{"INVALID_JSON":"{}"}})", cut));
  }
}

TEST(ChatRequestTest, ThoughtsThatComeBackAreTheAnswers) {
  const auto prompt = engine_prompt(
      R"([{"role":"user","content":"go"},
          {"role":"assistant","content":"b","reasoning_content":"a"},
          {"role":"user","content":"c"}])");
  EXPECT_EQ(prompt.messages.at(1).thinking, "a");
  EXPECT_EQ(prompt.messages.at(1).text, "b");
}

TEST(ChatRequestTest, TheReasoningEffortSaysWhetherTheModelThinks) {
  const auto rules = [](const std::string& members) {
    return accepted(R"("max_tokens":100000)" + members).prompt.rules;
  };
  EXPECT_EQ(rules("").thinking_tokens_max, 0U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":null)").thinking_tokens_max, 0U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":"none")").thinking_tokens_max, 0U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":"minimal")").thinking_tokens_max, 0U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":"low")").thinking_tokens_max, 2048U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":"medium")").thinking_tokens_max, 8192U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":"high")").thinking_tokens_max, 75000U);
  EXPECT_EQ(rules(R"(,"reasoning_effort":"high")").effort, "high");
  const auto both = rules(R"(,"reasoning_effort":"low","response_format":{"type":"json_object"})");
  EXPECT_EQ(both.thinking_tokens_max, 2048U);
  EXPECT_EQ(both.json_schema, R"({"type":"object"})");
}

TEST(ChatRequestTest, AToolMayBeNamedNone) {
  const auto request = accepted(
      R"("tools":[{"type":"function","function":{"name":"none"}}],"parallel_tool_calls":false,)"
      R"("tool_choice":{"type":"function","function":{"name":"none"}})");
  EXPECT_FALSE(request.prompt.rules.parallel_calls);
}

TEST(ChatRequestTest, TheLimitHasTwoNamesAndMayBeMissing) {
  EXPECT_EQ(accepted("").output_tokens_max, 4294967295U);
  EXPECT_EQ(accepted(R"("max_tokens":5)").output_tokens_max, 5U);
  EXPECT_EQ(accepted(R"("max_completion_tokens":6)").output_tokens_max, 6U);
  EXPECT_EQ(accepted(R"("max_tokens":5,"max_completion_tokens":6)").output_tokens_max, 6U);
  EXPECT_EQ(accepted(R"("max_tokens":5,"max_completion_tokens":null)").output_tokens_max, 5U);
  EXPECT_EQ(refusal(kHi, R"("max_tokens":-1)"),
            "max_tokens: Input should be greater than or equal to 0");
}

TEST(ChatRequestTest, StopIsAStringOrAListAndMayBeWhiteSpace) {
  using Stops = std::vector<std::string>;
  EXPECT_EQ(accepted("").stop_sequences, Stops());
  EXPECT_EQ(accepted(R"("stop":null)").stop_sequences, Stops());
  EXPECT_EQ(accepted(R"("stop":"\n")").stop_sequences, Stops{"\n"});
  EXPECT_EQ(accepted(R"("stop":["a","","b"])").stop_sequences, (Stops{"a", "b"}));
  EXPECT_EQ(refusal(kHi, R"("stop":1)"), "stop: Input should be a string or a list");
  EXPECT_EQ(refusal(kHi, R"("stop":[1])"), "stop: Input should be a valid string");
  const std::string long_one(1025, 'x');
  EXPECT_EQ(refusal(kHi, R"("stop":")" + long_one + "\""),
            "stop: String should have at most 1024 bytes");
  EXPECT_EQ(refusal(kHi, R"("stop":")" + long_one.substr(1) + "\""), "accepted");
  std::string many = R"("stop":["x")";
  for (int i = 0; i < 63; ++i) many += R"(,"x")";
  EXPECT_EQ(refusal(kHi, many + "]"), "accepted");
  EXPECT_EQ(refusal(kHi, many + R"(,"x"])"), "stop: List should have at most 64 items");
}

TEST(ChatRequestTest, SamplingAndStreamAreTakenOver) {
  const MessagesRequest request =
      accepted(R"("temperature":0.5,"top_p":0.25,"seed":7,"top_k":3,"stream":true)");
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.sampling.seed, 7U);
  EXPECT_EQ(request.sampling.top_k, 3);
  EXPECT_TRUE(request.stream);
  EXPECT_EQ(request.model, "m");
  EXPECT_FALSE(accepted("").stream);
  EXPECT_EQ(refusal(kHi, R"("temperature":3)"),
            "temperature: Input should be less than or equal to 2");
}

TEST(ChatRequestTest, UsageIsIncludedWhereItIsAskedFor) {
  EXPECT_TRUE(parse(kHi, R"("stream_options":{"include_usage":true})")->include_usage);
  EXPECT_FALSE(parse(kHi, R"("stream_options":{"include_usage":false})")->include_usage);
  EXPECT_FALSE(parse(kHi, R"("stream_options":{})")->include_usage);
  EXPECT_FALSE(parse(kHi)->include_usage);
}

TEST(ChatRequestTest, WhatIsUnknownIsIgnored) {
  EXPECT_EQ(refusal(kHi, R"("user":"u","store":true,"metadata":{},"frequency_penalty":1,)"
                         R"("reasoning_effort":"high","service_tier":"auto","n":1,)"
                         R"("logprobs":false,"modalities":["text"],"made_up":[1])"),
            "accepted");
}

TEST(ChatRequestTest, WhatWouldBeAnotherAnswerIsRefused) {
  EXPECT_EQ(refusal(kHi, R"("n":2)"), "n: this server gives one choice");
  EXPECT_EQ(refusal(kHi, R"("logprobs":true)"), "logprobs: this server does not give them");
  EXPECT_EQ(refusal(kHi, R"("functions":[])"), "functions: use tools");
  EXPECT_EQ(refusal(kHi, R"("modalities":["text","audio"])"),
            "modalities: this server gives text only");
}

TEST(ChatRequestTest, ABadRequestNamesTheField) {
  EXPECT_EQ(parse_chat_request("[]").error().message, "The request body should be a JSON object");
  EXPECT_EQ(parse_chat_request("{}").error().message, "messages: Field required");
  EXPECT_EQ(parse_chat_request(R"({"messages":[{"role":"user","content":"x"}]})").error().message,
            "model: Field required");
  EXPECT_EQ(refusal("[1]"), "messages.0: Input should be an object");
  EXPECT_EQ(refusal(R"([{"content":"x"}])"), "messages.0.role: Field required");
  EXPECT_EQ(refusal(R"([{"role":"function","content":"x"}])"),
            "messages.0.role: Input should be 'system', 'developer', 'user', 'assistant' or "
            "'tool'");
  EXPECT_EQ(refusal(R"([{"role":"user","content":1}])"),
            "messages.0.content: Input should be a string or a list");
  EXPECT_EQ(refusal(R"([{"role":"user","content":[{"type":"input_audio"}]}])"),
            "messages.0.content.0.type: this server does not support \"input_audio\"");
  EXPECT_EQ(refusal(R"([{"role":"tool","content":"x"}])"),
            "messages.0.tool_call_id: Field required");
  EXPECT_EQ(refusal(kHi, R"("tools":[{"type":"custom","custom":{"name":"f"}}])"),
            "tools.0.type: this server does not support \"custom\", only \"function\"");
  EXPECT_EQ(refusal(kHi, R"("tools":[],"tool_choice":{"type":"allowed_tools"})"),
            "tool_choice.type: this server does not support \"allowed_tools\", only \"function\"");
  EXPECT_EQ(refusal(kHi, R"("reasoning_effort":1)"),
            "reasoning_effort: Input should be a valid string");
  EXPECT_NE(refusal(R"([{"role":"user","content":[{"type":"image_url","image_url":)"
                    R"({"url":"data:image/png;base64,iVBO"}}]}])"),
            "accepted");
}

TEST(ChatRequestTest, ImagesOfDataAddressesAreForModelsThatSee) {
  const auto body = [](std::string_view url) {
    return R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},)"
           R"({"type":"image_url","image_url":{"url":")" +
           std::string(url) + R"("}}]}]})";
  };
  const auto seen = parse_chat_request(body("data:image/png;base64,iVBO"), true);
  ASSERT_TRUE(seen) << seen.error().message;
  const std::vector<engine::Image> images = {
      {1, "image/png", "iVBO", "messages.0.content.1.source.data"}};
  EXPECT_EQ(seen->messages.prompt.messages.at(0).images, images);
  EXPECT_EQ(parse_chat_request(body("data:image/png;base64,iVBO")).error().message,
            "messages.0.content.1: this model cannot read images");
  EXPECT_NE(parse_chat_request(body("https://x/y.png"), true)
                .error()
                .message.find("this server fetches nothing"),
            std::string::npos);
}

}  // namespace
}  // namespace pensieve::api
