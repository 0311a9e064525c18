#include "worker/embed_messages.h"

#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

TEST(EmbedMessagesTest, ARequestIsATextOrTokens) {
  const auto text = decode_embed_request(encode(EmbedRequest{"a \"text\"\n\u00e9", {}}));
  ASSERT_TRUE(text);
  EXPECT_EQ(text->text, "a \"text\"\n\u00e9");
  EXPECT_TRUE(text->tokens.empty());
  const auto tokens = decode_embed_request(encode(EmbedRequest{"", {0, 2147483647}}));
  ASSERT_TRUE(tokens);
  EXPECT_EQ(tokens->tokens, (std::vector<engine::Token>{0, 2147483647}));
}

TEST(EmbedMessagesTest, AVectorComesBackBitByBit) {
  const Embedded embedded{123456, {0.1F, -0.0F, 1e-38F, 3.4e38F}};
  const auto decoded = decode_embedded(encode(embedded));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->input_tokens, 123456U);
  EXPECT_EQ(decoded->embedding, embedded.embedding);
  EXPECT_TRUE(std::signbit(decoded->embedding[1]));
}

TEST(EmbedMessagesTest, WhatIsNoneIsAnError) {
  for (const char* payload : {"", "{}", "[]", R"({"tokens":[]})", R"({"tokens":[1.5]})",
                              R"({"tokens":["a"]})", R"({"text":1})"}) {
    EXPECT_EQ(decode_embed_request(payload).error().code, Code::kInvalidArgument) << payload;
  }
  for (const std::string& payload : {std::string(), std::string(4, '\1'), std::string(9, '\1')}) {
    EXPECT_EQ(decode_embedded(payload).error().code, Code::kInvalidArgument) << payload.size();
  }
  for (const float number :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_EQ(decode_embedded(encode(Embedded{1, {number}})).error().code, Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace pensieve::worker
