// The OpenAI face over HTTP: the same requests, limits and workers as /v1/messages, in its own
// words.
#include <regex>
#include <string>
#include <string_view>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace json = boost::json;
using std::chrono::seconds;

std::string chat(std::string_view script, std::string_view members = "") {
  return post("/v1/chat/completions",
              fmt::format(R"({{"model":"scripted","messages":[{{"role":"user","content":)"
                          R"("script: {}"}}]{}{}}})",
                          script, members.empty() ? "" : ",", members));
}

/// What a streamed answer sends, without ids and times: one line per frame.
std::string frames(TestServer& server, const std::string& request) {
  const Answer answer = server.answer(request);
  EXPECT_EQ(answer.status, 200U) << answer.body;
  EXPECT_EQ(answer.header("content-type"), "text/event-stream; charset=utf-8");
  std::string text = std::regex_replace(
      answer.body,
      std::regex(R"re("id":"chatcmpl-[0-9A-Za-z]{24}","object":"chat.completion.chunk",)re"
                 R"re("created":1767225600,"model":"scripted",)re"),
      "");
  text = std::regex_replace(text, std::regex("\n\n"), "\n");
  return std::regex_replace(text, std::regex(R"("logprobs":null,)"), "");
}

TEST(Chat, AWholeAnswerIsACompletion) {
  TestServer server;
  const Answer answer = server.answer(chat("say hello there"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_TRUE(answer.header("request-id").starts_with("req_"));
  EXPECT_EQ(answer.header("x-request-id"), answer.header("request-id"));
  EXPECT_EQ(std::regex_replace(answer.body, std::regex("chatcmpl-[0-9A-Za-z]{24}"), "ID"),
            R"({"id":"ID","object":"chat.completion","created":1767225600,"model":"scripted",)"
            R"("choices":[{"index":0,"message":{"role":"assistant","content":"hello there",)"
            R"("refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":)"
            R"({"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,)"
            R"("prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":)"
            R"({"reasoning_tokens":0}}})");
}

TEST(Chat, AStreamIsChunksAndDone) {
  TestServer server;
  EXPECT_EQ(frames(server, chat("say hello; delay 20; say there", R"("stream":true)")),
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
            "\"finish_reason\":null}]}\n"
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},"
            "\"finish_reason\":null}]}\n"
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" there\"},"
            "\"finish_reason\":null}]}\n"
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n"
            "data: [DONE]\n");
}

TEST(Chat, BothFacesShareWhatWasComputed) {
  TestServer server;
  EXPECT_EQ(server.answer(ask("say hello there", R"("system":"Be brief.")")).status, 200U);
  const Answer answer = server.answer(
      post("/v1/chat/completions",
           R"({"model":"scripted","messages":[{"role":"system","content":"Be brief."},)"
           R"({"role":"user","content":"script: say hello there"}]})"));
  const json::value usage = json::parse(answer.body).at("usage");
  EXPECT_EQ(usage.at("prompt_tokens_details").at("cached_tokens").to_number<int>() + 1,
            usage.at("prompt_tokens").to_number<int>())
      << "all but the last token, which is always computed";
}

TEST(Chat, ErrorsAreInTheWordsOfThisFace) {
  TestServer::Options options;
  options.service.access.keys = {{.name = "", .secret = "secret"}};
  TestServer server(std::move(options));
  const auto with_key = [](std::string request) {
    return request.insert(request.find("\r\n") + 2, "authorization: Bearer secret\r\n");
  };
  const Answer refused = server.answer(chat("say x"));
  EXPECT_EQ(refused.status, 401U);
  EXPECT_EQ(refused.header("x-should-retry"), "false");
  EXPECT_EQ(refused.body,
            R"({"error":{"message":"x-api-key header is required","type":"authentication_error",)"
            R"("param":null,"code":null}})");
  const Answer bad = server.answer(with_key(chat("say x", R"("n":2)")));
  EXPECT_EQ(bad.status, 400U);
  EXPECT_EQ(bad.body, R"({"error":{"message":"n: this server gives one choice","type":)"
                      R"("invalid_request_error","param":null,"code":null}})");
  EXPECT_EQ(server.answer(with_key(chat("say x"))).status, 200U);
  const Answer method = server.answer(with_key(get("/v1/chat/completions")));
  EXPECT_EQ(method.status, 405U);
  EXPECT_TRUE(method.body.starts_with(R"({"error":{"message")")) << method.body;
  server.set_available(512_MiB);
  const Answer short_of_memory = server.answer(with_key(chat("say x")));
  EXPECT_EQ(short_of_memory.status, 503U);
  EXPECT_NE(short_of_memory.body.find(R"("type":"overloaded_error")"), std::string::npos);
  EXPECT_FALSE(short_of_memory.header("retry-after").empty());
}

TEST(Chat, AWorkerThatDiesInAStreamIsAnErrorWithoutDone) {
  TestServer server;
  const std::string sent = frames(server, chat("say hello; abort", R"("stream":true)"));
  EXPECT_NE(sent.find("data: {\"error\":{\"message\":\"the model's worker ended: crashed"),
            std::string::npos)
      << sent;
  EXPECT_EQ(sent.find("[DONE]"), std::string::npos);
}

TEST(Chat, ASilentStreamGetsCommentsAndThenEmptyChunks) {
  TestServer::Options options;
  options.model_lines = "prefill_us_per_token 20000";
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  std::string words = "say hello; say";
  for (int i = 0; i < 2000; ++i) words += " word";
  probe.send(chat(words, R"("stream":true)"));
  EXPECT_EQ(probe.head().status, 200U);
  EXPECT_NE(probe.piece().find(R"("role":"assistant")"), std::string::npos);
  server.let_pass(seconds(10));
  EXPECT_EQ(probe.piece(), ": ping\n\n");
  server.let_pass(seconds(240));
  EXPECT_NE(probe.piece().find(R"("delta":{"content":""})"), std::string::npos);
}

TEST(Chat, EmbeddingsAreRefusedByName) {
  TestServer server;
  const Answer answer =
      server.answer(post("/v1/embeddings", R"({"model":"scripted","input":"x"})"));
  EXPECT_EQ(answer.status, 400U);
  EXPECT_EQ(answer.body,
            R"({"error":{"message":"model scripted gives no embeddings, and this server has no )"
            R"(other","type":"invalid_request_error","param":null,"code":null}})");
  EXPECT_EQ(server.answer(get("/v1/embeddings")).status, 405U);
}

TEST(Chat, ABodyThatIsTooLargeIsRefusedInOpenAIsWords) {
  TestServer::Options options;
  options.connection.body_bytes_max = 1000;
  TestServer server(std::move(options));
  const Answer answer = server.answer(post("/v1/chat/completions", std::string(1001, 'x')));
  EXPECT_EQ(answer.status, 413U);
  EXPECT_EQ(json::parse(answer.body).at("error").at("type"), "request_too_large");
  EXPECT_FALSE(json::parse(answer.body).as_object().contains("type"));
  EXPECT_EQ(answer.header("x-request-id"), answer.header("request-id"));
}

TEST(Chat, AnEffortLetsTheModelThink) {
  TestServer server;
  const auto message = [&](std::string_view members) {
    const Answer answer = server.answer(chat("think a b; say c", members));
    EXPECT_EQ(answer.status, 200U) << answer.body;
    return json::parse(answer.body).at("choices").at(0).at("message").as_object();
  };
  EXPECT_EQ(message(R"("reasoning_effort":"high")").at("reasoning_content"), "a b");
  EXPECT_FALSE(message(R"("reasoning_effort":"none")").contains("reasoning_content"));
  EXPECT_FALSE(message("").contains("reasoning_content"));
}

TEST(Chat, AKeysLimitsHoldHereToo) {
  TestServer::Options options;
  options.service.access.keys = {{.name = "ci", .secret = "one", .tokens_per_day_max = 1}};
  TestServer server(std::move(options));
  std::string request = chat("say x");
  request.insert(request.find("\r\n") + 2, "authorization: Bearer one\r\n");
  EXPECT_EQ(server.answer(request).status, 200U);
  const Answer refused = server.answer(request);
  EXPECT_EQ(refused.status, 429U);
  EXPECT_NE(refused.body.find(R"("type":"rate_limit_error")"), std::string::npos);
}

}  // namespace
}  // namespace pensieve::gateway
