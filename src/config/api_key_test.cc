// Entries of [server] keys, and mistakes in them, which never show the secret.
#include "config/api_key.h"

#include <string>

#include <gtest/gtest.h>

namespace pensieve::config {
namespace {

std::string error_of(const std::vector<std::string>& entries) {
  const auto keys = parse_api_keys(entries);
  if (keys) return "no error";
  EXPECT_EQ(keys.error().message.find("hush"), std::string::npos) << keys.error().message;
  return keys.error().message;
}

TEST(ApiKeyTest, AnEntryHasANameASecretAndLimits) {
  const auto keys =
      parse_api_keys({"alice hush-1", "  ci\thush-2  tokens_per_day=200000 requests=4 "});
  ASSERT_TRUE(keys) << keys.error().message;
  ASSERT_EQ(keys->size(), 2U);
  EXPECT_EQ((*keys)[0].name, "alice");
  EXPECT_EQ((*keys)[0].secret, "hush-1");
  EXPECT_EQ((*keys)[0].requests_max, 0U);
  EXPECT_EQ((*keys)[0].tokens_per_day_max, 0U);
  EXPECT_EQ((*keys)[1].name, "ci");
  EXPECT_EQ((*keys)[1].secret, "hush-2");
  EXPECT_EQ((*keys)[1].requests_max, 4U);
  EXPECT_EQ((*keys)[1].tokens_per_day_max, 200000U);
}

TEST(ApiKeyTest, AMistakeNamesTheEntryAndNeverTheSecret) {
  EXPECT_EQ(error_of({"a hush", "hush"}),
            "entry 2: expected NAME SECRET [requests=N] [tokens_per_day=N]");
  EXPECT_EQ(error_of({"a/b hush"}), "entry 1: a name is at most 64 of A-Z, a-z, 0-9, _ and -");
  EXPECT_EQ(error_of({std::string(65, 'x') + " hush"}),
            "entry 1: a name is at most 64 of A-Z, a-z, 0-9, _ and -");
  EXPECT_EQ(error_of({std::string(64, 'x') + " hush"}), "no error");
  for (const char* wrong : {"requests=0", "requests=x", "requests=", "requests=-1", "request=1",
                            "tokens_per_day=1k", "requests=99999999999"}) {
    EXPECT_EQ(
        error_of({std::string("a hush ") + wrong}),
        std::string("entry 1: a: expected requests=N or tokens_per_day=N from 1 on, found \"") +
            wrong + "\"");
  }
}

TEST(ApiKeyTest, NamesAndSecretsAreThereOnce) {
  EXPECT_EQ(error_of({"a hush-1", "a hush-2"}),
            "entry 2: a has the same name as an entry before it");
  EXPECT_EQ(error_of({"a hush-1", "b hush-1"}),
            "entry 2: b has the same secret as an entry before it");
}

TEST(ApiKeyTest, CommandsSendTheKeyThatMayDoMost) {
  const std::vector<std::string> entries = {"ci hush-1 requests=1", "day hush-2 tokens_per_day=9",
                                            "alice hush-3", "bob hush-4"};
  EXPECT_EQ(key_of_commands("sesame", entries), "sesame");
  EXPECT_EQ(key_of_commands("", entries), "hush-3");
  EXPECT_EQ(key_of_commands("", {entries[0], entries[1]}), "hush-1");
  EXPECT_EQ(key_of_commands("", {}), "");
}

}  // namespace
}  // namespace pensieve::config
