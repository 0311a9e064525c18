// What a key may use at once and in a day, as a class and over HTTP.
#include "gateway/key_limits.h"

#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using std::chrono::seconds;

class KeyLimitsTest : public testing::Test {
 protected:
  /// 0 where it may run.
  unsigned status(const ApiKey& key) {
    const auto running = limits_.try_run(key);
    return running ? 0 : running.error().status;
  }

  WallTime wall_{seconds(1'767'225'600)};  // 2026-01-01T00:00:00Z.
  KeyLimits limits_{[this] { return wall_; }};
};

TEST_F(KeyLimitsTest, AKeyWithoutLimitsHasNone) {
  const ApiKey key{.name = "a", .secret = "s"};
  limits_.spend("a", ~std::uint64_t{0} / 2);
  const auto first = limits_.try_run(key);
  EXPECT_EQ(status(key), 0U);
}

TEST_F(KeyLimitsTest, RequestsAtOnceAreCountedWhileTheyRun) {
  const ApiKey key{.name = "a", .secret = "s", .requests_max = 2};
  const auto first = limits_.try_run(key);
  std::optional<std::expected<KeyLimits::Running, api::ApiError>> second(limits_.try_run(key));
  const auto third = limits_.try_run(key);
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().status, 429U);
  EXPECT_EQ(third.error().type, "rate_limit_error");
  EXPECT_EQ(third.error().message, "key a has 2 requests running, and may have 2 at once");
  EXPECT_EQ(third.error().retry_after_seconds, 5U);
  EXPECT_FALSE(third.error().should_retry);
  EXPECT_EQ(status({.name = "b", .secret = "t", .requests_max = 1}), 0U) << "another key";
  second.reset();
  EXPECT_EQ(status(key), 0U);
}

TEST_F(KeyLimitsTest, TokensOfADayAreUsedUpAndComeBackAtMidnight) {
  const ApiKey key{.name = "a", .secret = "s", .tokens_per_day_max = 100};
  limits_.spend("a", 99);
  EXPECT_TRUE(limits_.has_tokens(key));
  EXPECT_EQ(status(key), 0U);
  limits_.spend("a", 1);
  EXPECT_FALSE(limits_.has_tokens(key));
  const auto refused = limits_.try_run(key);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 429U);
  EXPECT_EQ(refused.error().message,
            "key a has used 100 of its 100 tokens of this day; the next begins at 00:00 UTC");
  EXPECT_EQ(refused.error().should_retry, false) << "midnight is further away than clients wait";
  EXPECT_FALSE(refused.error().retry_after_seconds);
  wall_ += std::chrono::hours(24) - seconds(1);
  EXPECT_EQ(status(key), 429U);
  wall_ += seconds(1);
  EXPECT_EQ(status(key), 0U);
  EXPECT_TRUE(limits_.has_tokens(key));
}

std::string with_key(std::string request, std::string_view key) {
  request.insert(request.find("\r\n") + 2, "x-api-key: " + std::string(key) + "\r\n");
  return request;
}

TestServer::Options two_keys(const ApiKey& limited) {
  TestServer::Options options;
  options.service.access.keys = {limited, {.name = "free", .secret = "free"}};
  return options;
}

TEST(KeyLimitsOverHttp, AKeyAtItsLimitOfRequestsIsToldToWaitAndOthersAreNot) {
  TestServer server(two_keys({.name = "ci", .secret = "one", .requests_max = 1}));
  HttpProbe running = server.connect();
  running.send(with_key(ask_stream("delay 2; endless word"), "one"));
  running.head();
  const Answer refused = server.answer(with_key(ask("say x"), "one"));
  EXPECT_EQ(refused.status, 429U);
  EXPECT_EQ(refused.header("retry-after"), "5");
  EXPECT_NE(refused.body.find(R"("type":"rate_limit_error")"), std::string::npos);
  EXPECT_EQ(server.answer(with_key(ask("say x"), "free")).status, 200U);
  running.hang_up();
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  EXPECT_EQ(server.answer(with_key(ask("say x"), "one")).status, 200U);
}

TEST(KeyLimitsOverHttp, WhatWasComputedCountsAndWhatWasCachedDoesNot) {
  // "script: say x" is a prompt of 6 tokens with an answer of 1.
  TestServer server(two_keys({.name = "ci", .secret = "one", .tokens_per_day_max = 8}));
  EXPECT_EQ(server.answer(with_key(ask("say x"), "one")).status, 200U);
  EXPECT_EQ(server.answer(with_key(ask("say x"), "one")).status, 200U) << "7 of 8 are used";
  const Answer refused = server.answer(with_key(ask("say x"), "one"));
  EXPECT_EQ(refused.status, 429U) << "the second took 2 at least";
  EXPECT_EQ(refused.header("x-should-retry"), "false");
  EXPECT_EQ(refused.header("retry-after"), "");
  server.wall += std::chrono::hours(24);
  EXPECT_EQ(server.answer(with_key(ask("say x"), "one")).status, 200U);
}

TEST(KeyLimitsOverHttp, AnAnswerThatIsCutOffCountsToo) {
  TestServer server(two_keys({.name = "ci", .secret = "one", .tokens_per_day_max = 20}));
  HttpProbe running = server.connect();
  running.send(with_key(ask_stream("delay 2; endless word"), "one"));
  running.head();
  for (int pieces = 0; pieces < 20;) pieces += running.event()->name == "content_block_delta";
  running.hang_up();
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  EXPECT_EQ(server.answer(with_key(ask("say x"), "one")).status, 429U);
}

}  // namespace
}  // namespace pensieve::gateway
