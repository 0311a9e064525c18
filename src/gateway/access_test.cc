#include "gateway/access.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace pensieve::gateway {
namespace {

using namespace std::string_view_literals;

HttpRequest request(std::string method, std::string path, Headers headers) {
  return {.method = std::move(method),
          .path = std::move(path),
          .query = "",
          .headers = std::move(headers),
          .body = ""};
}

/// 0: may pass.
unsigned status(const Headers& headers, const AccessRules& rules) {
  const auto access = check_access(request("POST", "/v1/messages", headers), rules);
  return access ? 0 : access.error().status;
}

unsigned status_of_host(std::string_view host, const AccessRules& rules = {}) {
  return status({{"host", std::string(host)}}, rules);
}

AccessRules with_key() {
  AccessRules rules;
  rules.keys = {{.name = "", .secret = "secret"}};
  return rules;
}

TEST(Access, WithoutAKeyInTheSettingsNoneIsAskedFor) {
  EXPECT_EQ(status({}, {}), 0U);
  EXPECT_EQ(status({{"x-api-key", "anything"}}, {}), 0U);
}

TEST(Access, TheKeyIsTakenFromEitherHeader) {
  EXPECT_EQ(status({{"x-api-key", "secret"}}, with_key()), 0U);
  EXPECT_EQ(status({{"authorization", "Bearer secret"}}, with_key()), 0U);
  EXPECT_EQ(status({{"x-api-key", "secret"}, {"authorization", "Bearer secret"}}, with_key()), 0U);
  EXPECT_EQ(status({{"authorization", "bearer  secret "}}, with_key()), 0U);
}

TEST(Access, OneHeaderThatFitsIsEnough) {
  EXPECT_EQ(status({{"x-api-key", "sk-real"}, {"authorization", "Bearer secret"}}, with_key()), 0U);
  EXPECT_EQ(status({{"x-api-key", "secret"}, {"authorization", "Bearer sk-real"}}, with_key()), 0U);
  EXPECT_EQ(status({{"x-api-key", "sk-real"}, {"authorization", "Bearer sk-real"}}, with_key()),
            401U);
}

TEST(Access, AMissingKeyIsToldFromAWrongOne) {
  const auto message = [](const Headers& headers) {
    return check_access(request("POST", "/v1/messages", headers), with_key()).error().message;
  };
  EXPECT_EQ(message({}), "x-api-key header is required");
  EXPECT_EQ(message({{"x-api-key", "other"}}), "invalid x-api-key");
  EXPECT_EQ(message({{"authorization", "Bearer other"}}), "invalid x-api-key");
}

TEST(Access, AKeyWithLimitsDoesNotAdminister) {
  AccessRules rules = with_key();
  rules.keys.push_back({.name = "a", .secret = "one", .requests_max = 1});
  rules.keys.push_back({.name = "b", .secret = "two", .tokens_per_day_max = 1});
  rules.keys.push_back({.name = "c", .secret = "three"});
  const auto answer = [&](std::string method, std::string path, const char* secret) {
    const auto access = check_access(request(method, path, {{"x-api-key", secret}}), rules);
    return access ? 0U : access.error().status;
  };
  for (const char* path : {"/v1/pensieve/stop", "/v1/pensieve/clear-cache"}) {
    EXPECT_EQ(answer("POST", path, "secret"), 0U);
    EXPECT_EQ(answer("POST", path, "three"), 0U);
    EXPECT_EQ(answer("POST", path, "one"), 403U);
    EXPECT_EQ(answer("POST", path, "two"), 403U);
    EXPECT_EQ(answer("POST", path, "wrong"), 401U);
  }
  EXPECT_EQ(answer("GET", "/v1/pensieve/ps", "one"), 0U);
  EXPECT_EQ(answer("POST", "/v1/messages", "one"), 0U);
}

TEST(Access, AMissingOrWrongKeyIsRefusedAndNotRetried) {
  for (const Headers& headers :
       {Headers{}, Headers{{"x-api-key", "Secret"}}, Headers{{"x-api-key", "secret "}},
        Headers{{"authorization", "secret"}}, Headers{{"authorization", "Bearer "}},
        Headers{{"authorization", "Basic secret"}}}) {
    const auto access = check_access(request("POST", "/v1/messages", headers), with_key());
    ASSERT_FALSE(access.has_value());
    EXPECT_EQ(access.error().status, 401U);
    EXPECT_EQ(access.error().type, "authentication_error");
    EXPECT_EQ(access.error().should_retry, false);
  }
}

TEST(Access, EachOfSeveralKeysOpensAndTellsItsNameAndLimits) {
  AccessRules rules;
  rules.keys = {{.name = "", .secret = "zero"},
                {.name = "a", .secret = "one", .requests_max = 2, .tokens_per_day_max = 3},
                {.name = "b", .secret = "two"}};
  const auto key = [&](const std::string& secret) {
    return key_of(request("POST", "/v1/messages", {{"x-api-key", secret}}), rules);
  };
  for (const char* secret : {"zero", "one", "two"}) {
    EXPECT_EQ(status({{"x-api-key", secret}}, rules), 0U) << secret;
  }
  EXPECT_EQ(status({{"x-api-key", "three"}}, rules), 401U);
  EXPECT_EQ(status({}, rules), 401U);
  EXPECT_EQ(key("one").name, "a");
  EXPECT_EQ(key("one").requests_max, 2U);
  EXPECT_EQ(key("one").tokens_per_day_max, 3U);
  EXPECT_EQ(key("two").name, "b");
  EXPECT_EQ(key("three").name, "");
}

TEST(Access, WhatComesThroughAProxyNeedsAKey) {
  for (const char* from :
       {"203.0.113.7", "127.0.0.1, 203.0.113.7", "203.0.113.7,127.0.0.1", "::2", "unknown"}) {
    const Headers headers{{"x-forwarded-for", from}};
    EXPECT_EQ(status(headers, {}), 403U) << from;
    EXPECT_EQ(status(headers, with_key()), 401U) << from;
  }
  for (const char* from : {"127.0.0.1", "::1", " 127.0.0.1 ,127.0.0.2", ""}) {
    EXPECT_EQ(status({{"x-forwarded-for", from}}, {}), 0U) << from;
  }
  EXPECT_EQ(status({{"x-forwarded-for", "203.0.113.7"}, {"x-api-key", "secret"}}, with_key()), 0U);
  const HttpRequest health = request("GET", "/health", {{"x-forwarded-for", "203.0.113.7"}});
  EXPECT_TRUE(check_access(health, {}));
}

TEST(Access, EveryHeaderInWhichAProxyNamesTheClientCounts) {
  EXPECT_EQ(status({{"x-forwarded-for", "127.0.0.1"}, {"x-forwarded-for", "203.0.113.7"}}, {}),
            403U);
  EXPECT_EQ(status({{"x-real-ip", "203.0.113.7"}}, {}), 403U);
  EXPECT_EQ(status({{"x-real-ip", "127.0.0.1"}}, {}), 0U);
  for (const char* elsewhere :
       {"for=203.0.113.7", "for=127.0.0.1, For=\"[2001:db8::1]:80\"", "proto=https;for=unknown",
        "proto=https", "for=127.0.0.1;proto=http,by=127.0.0.1", "for=_hidden", "for=\"", "for"}) {
    EXPECT_EQ(status({{"forwarded", elsewhere}}, {}), 403U) << elsewhere;
  }
  for (const char* here :
       {"for=127.0.0.1", "proto=http; FOR = \"127.0.0.1:999\"", "for=\"[::1]\", for=localhost"}) {
    EXPECT_EQ(status({{"forwarded", here}}, {}), 0U) << here;
  }
}

TEST(Access, HealthAndTheConnectionTestNeedNoKey) {
  EXPECT_TRUE(check_access(request("GET", "/health", {}), with_key()));
  EXPECT_TRUE(check_access(request("HEAD", "/health", {}), with_key()));
  EXPECT_TRUE(check_access(request("HEAD", "/", {}), with_key()));
  EXPECT_TRUE(check_access(request("OPTIONS", "/v1/messages", {}), with_key()));
  EXPECT_FALSE(check_access(request("GET", "/", {}), with_key()));
  EXPECT_FALSE(check_access(request("POST", "/health", {}), with_key()));
  EXPECT_FALSE(check_access(request("GET", "/v1/models", {}), with_key()));
}

TEST(Access, LoopbackNamesOfAnyPortAreOurs) {
  for (const std::string_view host :
       {"127.0.0.1", "127.0.0.1:7777", "127.1.2.3", "localhost", "localhost:80", "a.localhost:1",
        "LocalHost:80", "[::1]", "[::1]:7777"}) {
    EXPECT_EQ(status_of_host(host), 0U) << host;
  }
  EXPECT_EQ(status({}, {}), 0U) << "HTTP/1.0";
}

TEST(Access, ALoopbackServerIsNotReachedUnderAnyOtherName) {
  for (const std::string_view host :
       {"example.com", "example.com:7777", "127.0.0.1.example.com", "localhost.example.com",
        "notlocalhost", "10.0.0.1", "[::2]:7777", "[", ":", "[::1"}) {
    const unsigned expected = host == "[::1" ? 0U : 403U;
    EXPECT_EQ(status_of_host(host), expected) << host;
  }
}

TEST(Access, AServerForOthersIsReachedUnderEveryName) {
  AccessRules rules;
  rules.loopback_only = false;
  EXPECT_EQ(status_of_host("example.com", rules), 0U);
}

TEST(Access, WebPagesOfOtherSitesAreRefused) {
  const auto page = [](std::string_view origin, const AccessRules& rules = {}) {
    return status({{"host", "127.0.0.1:7777"}, {"origin", std::string(origin)}}, rules);
  };
  EXPECT_EQ(page("http://127.0.0.1:7777"), 0U);
  EXPECT_EQ(page("http://127.0.0.1:7778"), 403U);
  EXPECT_EQ(page("http://127.0.0.1"), 403U);
  EXPECT_EQ(page("https://example.com"), 403U);
  EXPECT_EQ(page("null"), 403U);
  AccessRules rules;
  rules.allowed_origins = {"https://example.com"};
  EXPECT_EQ(page("https://example.com", rules), 0U);
  EXPECT_EQ(page("https://example.com.evil", rules), 403U);
  EXPECT_EQ(page("http://example.com", rules), 403U);
}

TEST(Access, AListedOriginStillNeedsTheKey) {
  AccessRules rules = with_key();
  rules.allowed_origins = {"https://example.com"};
  EXPECT_EQ(status({{"origin", "https://example.com"}}, rules), 401U);
}

TEST(Access, KeysAreEqualOnlyWhereEachByteAndTheLengthAre) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  EXPECT_FALSE(equal_in_constant_time("secret", "Secret"));
  EXPECT_FALSE(equal_in_constant_time("secret", "secreT"));
  EXPECT_FALSE(equal_in_constant_time("secre", "secret"));
  EXPECT_FALSE(equal_in_constant_time("secret", "secre"));
  EXPECT_FALSE(equal_in_constant_time("", "secret"));
  EXPECT_FALSE(equal_in_constant_time("secret", ""));
  EXPECT_FALSE(equal_in_constant_time("secret\0"sv, "secret"sv));
  EXPECT_FALSE(equal_in_constant_time("secret"sv, "secret\0"sv));
  EXPECT_FALSE(equal_in_constant_time("\xff", "\x7f"));
}

}  // namespace
}  // namespace pensieve::gateway
