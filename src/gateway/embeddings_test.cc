// POST /v1/embeddings over HTTP, with a scripted model that gives vectors.
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace json = boost::json;

TestServer::Options embedding(std::string_view more = "") {
  TestServer::Options options;
  options.model_lines = fmt::format("embedding_size 4\n{}", more);
  return options;
}

std::string embed(std::string_view input, std::string_view more = "") {
  return post("/v1/embeddings", fmt::format(R"({{"model":"scripted","input":{}{}}})", input, more));
}

json::value vectors(TestServer& server, const std::string& request) {
  const Answer answer = server.answer(request);
  EXPECT_EQ(answer.status, 200U) << answer.body;
  EXPECT_EQ(answer.header("content-type"), "application/json");
  return answer.status == 200 ? json::parse(answer.body) : json::value();
}

std::string refusal(TestServer& server, const std::string& request, unsigned status = 400) {
  const Answer answer = server.answer(request);
  EXPECT_EQ(answer.status, status) << answer.body;
  const json::value body = json::parse(answer.body);
  const json::value* const message = body.at("error").as_object().if_contains("message");
  EXPECT_TRUE(body.at("error").as_object().contains("code")) << "OpenAI's form";
  return message != nullptr ? std::string(message->as_string()) : std::string();
}

TEST(Embeddings, AreInTheOrderOfTheInputsAndOfLengthOne) {
  TestServer server(embedding());
  const json::value body = vectors(server, embed(R"(["one two","three","one two"])"));
  EXPECT_EQ(body.at("object").as_string(), "list");
  EXPECT_EQ(body.at("model").as_string(), "scripted");
  EXPECT_EQ(body.at("usage").at("prompt_tokens").as_int64(), 5);
  EXPECT_EQ(body.at("usage").at("total_tokens").as_int64(), 5);
  const json::array& data = body.at("data").as_array();
  ASSERT_EQ(data.size(), 3U);
  for (std::size_t i = 0; i < data.size(); ++i) {
    EXPECT_EQ(data[i].at("index").to_number<std::size_t>(), i);
    EXPECT_EQ(data[i].at("object").as_string(), "embedding");
    double square = 0;
    for (const json::value& number : data[i].at("embedding").as_array()) {
      square += std::pow(number.to_number<double>(), 2);
    }
    EXPECT_NEAR(square, 1, 1e-5);
  }
  EXPECT_EQ(data[0].at("embedding"), data[2].at("embedding"));
  EXPECT_NE(data[0].at("embedding"), data[1].at("embedding"));
  const json::value alone = vectors(server, embed(R"("three")"));
  EXPECT_EQ(alone.at("data").at(0).at("embedding"), data[1].at("embedding"));
}

TEST(Embeddings, WhatCannotBeSaysWhy) {
  TestServer server(embedding("context_tokens 100\n"));
  EXPECT_EQ(refusal(server, embed(R"("")")), "input: String should have at least 1 character");
  EXPECT_EQ(refusal(server, embed(R"("x")", R"(,"dimensions":5)")),
            "dimensions: this model's vectors have 4");
  EXPECT_EQ(vectors(server, embed(R"("x")", R"(,"dimensions":4)")).at("data").as_array().size(),
            1U);
  std::string words;
  for (int i = 0; i < 100; ++i) words += " word";
  EXPECT_EQ(vectors(server, embed('"' + words + '"')).at("usage").at("total_tokens").as_int64(),
            100);
  EXPECT_EQ(refusal(server, embed("[\"x\",\"" + words + " more\"]")),
            "input.1: input is too long: 101 tokens > 100 maximum");
  EXPECT_EQ(refusal(server, embed('"' + std::string(1 << 20, 'x') + '"')),
            "input is too long: 262144 tokens > 100 maximum");
  EXPECT_EQ(refusal(server, embed("[1]")), "token 1 has no text");
  EXPECT_NE(refusal(server, post("/v1/embeddings", R"({"model":"other","input":"x"})"), 404)
                .find("other"),
            std::string::npos);
}

TEST(Embeddings, AModelThatGivesThemAnswersNothingElse) {
  TestServer server(embedding());
  const std::string why = "this model gives embeddings (POST /v1/embeddings) and no answers";
  EXPECT_EQ(refusal(server, post("/v1/chat/completions",
                                 R"({"model":"scripted","messages":[{"role":"user",)"
                                 R"("content":"hello"}]})")),
            why);
  const Answer messages = server.answer(ask("say x"));
  EXPECT_EQ(messages.status, 400U);
  EXPECT_EQ(json::parse(messages.body).at("error").at("message").as_string(), why);
}

TEST(Embeddings, AWorkerThatDiesInAListIsReplacedOnceAndTheListGoesOn) {
  TestServer server(embedding());
  const std::string list = fmt::format(R"(["one","script: {}","two"])", server.once("abort"));
  const json::value body = vectors(server, embed(list));
  EXPECT_EQ(body.at("data").as_array().size(), 3U);
  EXPECT_TRUE(server.once_happened());
  EXPECT_NE(refusal(server, embed(R"("script: abort")"), 500).find("worker ended"),
            std::string::npos);
}

TEST(Embeddings, ShortMemoryRefusesWithTheHeaders) {
  TestServer server(embedding());
  EXPECT_EQ(server.answer(embed(R"("x")")).status, 200U);
  server.set_available(512_MiB);
  const Answer answer = server.answer(embed(R"("x")"));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_FALSE(answer.header("retry-after").empty());
  EXPECT_FALSE(answer.header("x-memory-status").empty());
  EXPECT_NE(answer.body.find(R"("type":"overloaded_error")"), std::string::npos);
}

TEST(Embeddings, AKeysLimitsHoldHereToo) {
  TestServer::Options options = embedding();
  options.service.access.keys = {{.name = "ci", .secret = "one", .tokens_per_day_max = 1}};
  TestServer server(std::move(options));
  std::string request = embed(R"("one two")");
  request.insert(request.find("\r\n") + 2, "authorization: Bearer one\r\n");
  EXPECT_EQ(server.answer(request).status, 200U);
  EXPECT_EQ(server.answer(request).status, 429U);
}

TEST(Embeddings, AClientThatHangsUpEndsItsList) {
  TestServer server(embedding());
  {
    HttpProbe probe = server.connect();
    probe.send(embed(R"(["one","script: slow 60000","two"])"));
    EXPECT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  }
  EXPECT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  server.kill_worker();  // It is slow, and nobody waits for it.
}

TEST(Embeddings, PressureEndsAListEarly) {
  TestServer server(embedding());
  HttpProbe probe = server.connect();
  probe.send(embed(R"(["script: slow 60000","two"])"));
  EXPECT_TRUE(server.wait_until(
      [&] { return server.running() + server.service().requests_running() >= 1; }));
  EXPECT_TRUE(server.service().end_newest(api::overloaded("memory is short", 5)));
  EXPECT_EQ(server.service().requests_running(), 0U);
  EXPECT_EQ(probe.answer().status, 503U);
  server.kill_worker();
}

}  // namespace
}  // namespace pensieve::gateway
