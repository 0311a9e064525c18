#include "api/messages.h"

#include <limits>

#include <gtest/gtest.h>

#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

constexpr std::string_view kHello = R"([{"role":"user","content":"hi"}])";

std::string refusal_of_body(std::string_view body) {
  return refusal_of(parse_messages_request(body));
}

/// The refusal of an otherwise good body with this member.
std::string refusal_with(std::string_view member) {
  return refusal_of(parse_with(kHello, member));
}

/// max_tokens as it is understood, 0 where it is refused.
std::uint32_t max_tokens_of(std::string_view number) {
  const auto request = parse_with(kHello, R"("max_tokens":)" + std::string(number));
  return request ? request->output_tokens_max : 0;
}

engine::Sampling sampling_of(std::string_view members) {
  const auto request = parse_with(kHello, members);
  EXPECT_TRUE(request) << members;
  return request ? request->sampling : engine::Sampling{};
}

TEST(MessagesRequestTest, ReadsTheSmallestBody) {
  const auto request = parse_with(kHello);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->model, "m");
  EXPECT_EQ(shown(request->prompt), "u: hi\n");
  EXPECT_EQ(request->output_tokens_max, 10U);
  EXPECT_FALSE(request->stream);
  EXPECT_TRUE(request->stop_sequences.empty());
  EXPECT_EQ(request->sampling.temperature, std::nullopt);
  EXPECT_EQ(request->sampling.top_p, std::nullopt);
  EXPECT_EQ(request->sampling.top_k, std::nullopt);
  EXPECT_EQ(request->sampling.seed, std::nullopt);
}

TEST(MessagesRequestTest, ReadsARealBodyOfClaudeCode) {
  const auto request = parse_messages_request(kClaudeCodeBody);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->model, "qwen3-local");
  EXPECT_EQ(request->output_tokens_max, 32000U);
  EXPECT_TRUE(request->stream);
  EXPECT_EQ(
      shown(request->prompt),
      "s: You are a Claude agent.\n\nYou are an agent ...\n"
      "u: <system-reminder>\nCLAUDE.md\n</system-reminder>\nList the files\n"
      "s: Today is Monday.\n"
      "a: I look.\n"
      "<tool_call>\n{\"name\":\"Bash\",\"arguments\":{\"command\":\"ls\",\"timeout\":1.0}}\n"
      "</tool_call>\n"
      "<tool_call>\n{\"name\":\"Read\",\"arguments\":{\"file_path\":\"/a/b\",\"limit\":100}}\n"
      "</tool_call>\n"
      "<tool_call>\n{\"name\":\"ToolSearch\",\"arguments\":{}}\n</tool_call>\n"
      "u: <tool_response>\na.txt\n</tool_response>\n"
      "<tool_response>\n1: x\n[image omitted: this model cannot read images]\n"
      "</tool_response>\n"
      "<tool_response>\n<functions><function>{\"description\":\"\",\"name\":\"WebFetch\","
      "\"parameters\":{}}</function></functions>\n</tool_response>\n"
      "s: A new skill is there.\n");
}

TEST(MessagesRequestTest, NamesEachMissingField) {
  EXPECT_EQ(refusal_of_body(R"({"max_tokens":1,"messages":[]})"), "model: Field required");
  EXPECT_EQ(refusal_of_body(R"({"model":"m","messages":[]})"), "max_tokens: Field required");
  EXPECT_EQ(refusal_of_body(R"({"model":"m","max_tokens":1})"), "messages: Field required");
  EXPECT_EQ(refusal_of(parse_with(R"([{"content":"hi"}])")), "messages.0.role: Field required");
  EXPECT_EQ(refusal_of(parse_with(R"([{"role":"user"}])")), "messages.0.content: Field required");
}

TEST(MessagesRequestTest, RefusesABodyThatIsNoObject) {
  for (const std::string_view body : {"[]", "null", "1", "\"x\""}) {
    EXPECT_EQ(refusal_of_body(body), "The request body should be a JSON object") << body;
  }
  EXPECT_EQ(refusal_of_body("{"),
            "The request body is not valid JSON: it ends too early: line 1 column 2 (byte 1)");
}

TEST(MessagesRequestTest, RefusesMalformedModels) {
  EXPECT_EQ(refusal_with(R"("model":"")"), "model: String should have at least 1 character");
  EXPECT_EQ(refusal_with(R"("model":1)"), "model: Input should be a valid string");
  EXPECT_EQ(refusal_with(R"("model":null)"), "model: Input should be a valid string");
  const auto model = [](std::size_t bytes) {
    return R"("model":")" + std::string(bytes, 'x') + "\"";
  };
  EXPECT_EQ(refusal_with(model(256)), "accepted");
  EXPECT_EQ(refusal_with(model(257)), "model: String should have at most 256 bytes");
  EXPECT_EQ(parse_with(kHello, R"("model":"a/b:Q4.1[1m]")")->model, "a/b:Q4.1[1m]");
}

TEST(MessagesRequestTest, ReadsMaxTokensHoweverItIsWrittenAndClampsIt) {
  EXPECT_EQ(max_tokens_of("0"), 0U) << "the prompt is read, nothing is said";
  EXPECT_EQ(max_tokens_of("-0.0"), 0U);
  EXPECT_EQ(max_tokens_of("1"), 1U);
  EXPECT_EQ(max_tokens_of("64.0"), 64U);
  EXPECT_EQ(max_tokens_of("6.4e1"), 64U);
  EXPECT_EQ(max_tokens_of("4294967294"), 4294967294U);
  EXPECT_EQ(max_tokens_of("4294967295"), 4294967295U);
  EXPECT_EQ(max_tokens_of("4294967296"), 4294967295U);
  EXPECT_EQ(max_tokens_of("18446744073709551615"), 4294967295U);
  EXPECT_EQ(max_tokens_of("1e300"), 4294967295U);
}

TEST(MessagesRequestTest, RefusesMaxTokensThatAreNoPositiveWholeNumber) {
  for (const std::string_view number : {"1.5", "1e400", "-1e400", "\"1\"", "null", "true", "[]"}) {
    EXPECT_EQ(refusal_with(R"("max_tokens":)" + std::string(number)),
              "max_tokens: Input should be a valid integer")
        << number;
  }
  for (const std::string_view number : {"-1", "-1.0", "-1e30"}) {
    EXPECT_EQ(refusal_with(R"("max_tokens":)" + std::string(number)),
              "max_tokens: Input should be greater than or equal to 0")
        << number;
  }
}

TEST(MessagesRequestTest, RefusesMalformedMessages) {
  EXPECT_EQ(refusal_of(parse_with("[]")), "messages: at least one message is required");
  EXPECT_EQ(refusal_of(parse_with("{}")), "messages: Input should be a valid list");
  EXPECT_EQ(refusal_of(parse_with("null")), "messages: Input should be a valid list");
  EXPECT_EQ(refusal_of(parse_with("[1]")), "messages.0: Input should be an object");
  for (const std::string_view role : {R"("tool")", R"("User")", "1", "null"}) {
    EXPECT_EQ(refusal_of(parse_with(R"([{"content":"a","role":)" + std::string(role) + "}]")),
              "messages.0.role: Input should be 'user', 'assistant' or 'system'");
  }
}

TEST(MessagesRequestTest, TakesTheLastOfDuplicateFieldsEverywhere) {
  EXPECT_EQ(prompt_of(kHello, R"("messages":[{"role":"user","content":"a","content":"b"}])"),
            "u: b\n");
  EXPECT_EQ(max_tokens_of("1,\"max_tokens\":2"), 2U);
}

TEST(MessagesRequestTest, ReadsSamplingUpToItsBounds) {
  EXPECT_EQ(sampling_of(R"("temperature":0)").temperature, 0.0F);
  EXPECT_EQ(sampling_of(R"("temperature":2)").temperature, 2.0F);
  EXPECT_EQ(sampling_of(R"("temperature":0.5)").temperature, 0.5F);
  EXPECT_EQ(sampling_of(R"("top_p":1)").top_p, 1.0F);
  EXPECT_EQ(sampling_of(R"("top_k":1)").top_k, 1);
  EXPECT_EQ(sampling_of(R"("top_k":40.0)").top_k, 40);
  EXPECT_EQ(sampling_of(R"("seed":0)").seed, 0U);
  EXPECT_EQ(sampling_of(R"("seed":4294967295)").seed, 4294967295U);
  EXPECT_EQ(sampling_of(R"("seed":4294967303)").seed, 7U);
  EXPECT_EQ(sampling_of(R"("seed":-1)").seed, std::nullopt);
}

TEST(MessagesRequestTest, GivesEnginesATopPAboveZero) {
  EXPECT_GT(sampling_of(R"("top_p":0)").top_p, 0.0F);
  EXPECT_GT(sampling_of(R"("top_p":1e-300)").top_p, 0.0F);
}

TEST(MessagesRequestTest, ReadsTopKWithoutLimitAsTheLargest) {
  constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();
  for (const std::string_view number : {"0", "-1", "2147483647", "2147483648", "1e300"}) {
    EXPECT_EQ(sampling_of(R"("top_k":)" + std::string(number)).top_k, kNoLimit) << number;
  }
}

TEST(MessagesRequestTest, RefusesSamplingOutOfBounds) {
  EXPECT_EQ(refusal_with(R"("temperature":2.001)"),
            "temperature: Input should be less than or equal to 2");
  EXPECT_EQ(refusal_with(R"("temperature":-0.1)"),
            "temperature: Input should be greater than or equal to 0");
  EXPECT_EQ(refusal_with(R"("temperature":1e400)"), "temperature: Input should be a valid number");
  EXPECT_EQ(refusal_with(R"("temperature":"1")"), "temperature: Input should be a valid number");
  EXPECT_EQ(refusal_with(R"("top_p":1.001)"), "top_p: Input should be less than or equal to 1");
  EXPECT_EQ(refusal_with(R"("top_p":-1)"), "top_p: Input should be greater than or equal to 0");
  EXPECT_EQ(refusal_with(R"("top_k":1.5)"), "top_k: Input should be a valid integer");
  EXPECT_EQ(refusal_with(R"("top_k":-2)"), "top_k: Input should be greater than or equal to -1");
}

TEST(MessagesRequestTest, ReadsStopSequences) {
  EXPECT_EQ(parse_with(kHello, R"("stop_sequences":["a","\n\nHuman:"])")->stop_sequences,
            (std::vector<std::string>{"a", "\n\nHuman:"}));
  EXPECT_TRUE(parse_with(kHello, R"("stop_sequences":[])")->stop_sequences.empty());
}

TEST(MessagesRequestTest, RefusesMalformedStopSequences) {
  constexpr std::string_view kBlank =
      "stop_sequences: each stop sequence must contain non-whitespace";
  EXPECT_EQ(refusal_with(R"("stop_sequences":[""])"), kBlank);
  EXPECT_EQ(refusal_with(R"("stop_sequences":["a"," \n"])"), kBlank);
  EXPECT_EQ(refusal_with(R"("stop_sequences":"a")"),
            "stop_sequences: Input should be a valid list");
  EXPECT_EQ(refusal_with(R"("stop_sequences":["a",1])"),
            "stop_sequences.1: Input should be a valid string");
  const auto sequences = [](std::size_t count, std::size_t bytes) {
    std::string list;
    for (std::size_t i = 0; i < count; ++i) {
      list += (i > 0 ? ",\"" : "\"") + std::string(bytes, 'x') + "\"";
    }
    return R"("stop_sequences":[)" + list + "]";
  };
  EXPECT_EQ(refusal_with(sequences(64, 1)), "accepted");
  EXPECT_EQ(refusal_with(sequences(65, 1)), "stop_sequences: List should have at most 64 items");
  EXPECT_EQ(refusal_with(sequences(1, 1024)), "accepted");
  EXPECT_EQ(refusal_with(sequences(1, 1025)),
            "stop_sequences.0: String should have at most 1024 bytes");
}

TEST(MessagesRequestTest, ReadsStream) {
  EXPECT_TRUE(parse_with(kHello, R"("stream":true)")->stream);
  EXPECT_FALSE(parse_with(kHello, R"("stream":false)")->stream);
  EXPECT_EQ(refusal_with(R"("stream":1)"), "stream: Input should be a valid boolean");
}

TEST(MessagesRequestTest, TakesNullForAbsentWhereAFieldMayBeAbsent) {
  EXPECT_EQ(refusal_with(R"("stream":null,"temperature":null,"top_p":null,"top_k":null,)"
                         R"("seed":null,"stop_sequences":null,"system":null,"thread":null,)"
                         R"("mcp_servers":null,"container":null)"),
            "accepted");
}

TEST(MessagesRequestTest, IgnoresUnknownFieldsOfAnyType) {
  EXPECT_EQ(refusal_with(R"("safeguards":[{}],"service_tier":"auto","speed":7,)"
                         R"("metadata":1,"fallbacks":null,"":{}, "betas":["x"])"),
            "accepted");
}

TEST(MessagesRequestTest, RefusesThreadsInTheWayThatMakesTheSdksResend) {
  for (const std::string_view thread :
       {R"({"type":"create"})", R"({"type":"continue","previous_message_id":"msg_1"})"}) {
    const auto request = parse_with(kHello, R"("thread":)" + std::string(thread));
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().status, 400U);
    EXPECT_EQ(error_body(request.error(), "req_1"),
              R"({"type":"error","error":{"type":"invalid_request_error",)"
              R"("message":"This server does not support message threads",)"
              R"("details":{"error_code":"thread_unsupported_request",)"
              R"("unsupported":["thread"]}},"request_id":"req_1"})");
  }
}

TEST(MessagesRequestTest, RefusesWhatWouldChangeTheMeaningOfTheMessages) {
  EXPECT_EQ(refusal_with(R"("mcp_servers":[{"url":"x"}])"),
            "mcp_servers: this server does not support it");
  EXPECT_EQ(refusal_with(R"("mcp_servers":[])"), "accepted");
  EXPECT_EQ(refusal_with(R"("container":"c")"), "container: this server does not support it");
}

TEST(CountTokensRequestTest, NeedsOnlyModelAndMessages) {
  const auto request = parse_count_tokens_request(
      R"({"model":"m","messages":[{"role":"user","content":"foo"}],"tools":[],"system":"s"})");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->model, "m");
  EXPECT_EQ(shown(request->prompt), "s: s\nu: foo\n");
}

TEST(CountTokensRequestTest, RefusesWhatAMessagesRequestDoes) {
  const auto message = [](std::string_view body) {
    const auto request = parse_count_tokens_request(body);
    return request ? "accepted" : request.error().message;
  };
  EXPECT_EQ(message(R"({"model":"m"})"), "messages: Field required");
  EXPECT_EQ(message(R"({"messages":[]})"), "model: Field required");
  EXPECT_EQ(message(R"({"model":"m","messages":[],"thread":{}})"),
            "This server does not support message threads");
  EXPECT_EQ(message("{}{}"),
            "The request body is not valid JSON: extra data: line 1 column 3 (byte 2)");
}

}  // namespace
}  // namespace pensieve::api
