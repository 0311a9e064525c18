#include "api/embeddings.h"

#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "base/base64.h"

namespace pensieve::api {
namespace {

namespace json = boost::json;

std::string body(std::string_view input, std::string_view more = "") {
  return fmt::format(R"({{"model":"m","input":{}{}}})", input, more);
}

EmbeddingsRequest parsed(std::string_view text) {
  auto request = parse_embeddings_request(text);
  EXPECT_TRUE(request) << request.error().message;
  return request ? *std::move(request) : EmbeddingsRequest{};
}

std::string refused(std::string_view text) {
  const auto request = parse_embeddings_request(text);
  EXPECT_FALSE(request) << text;
  if (request) return {};
  EXPECT_EQ(request.error().status, 400U);
  return request.error().message;
}

TEST(EmbeddingsRequestTest, AStringIsOneInput) {
  const EmbeddingsRequest request = parsed(body(R"("a text")"));
  EXPECT_EQ(request.model, "m");
  ASSERT_EQ(request.inputs.size(), 1U);
  EXPECT_EQ(request.inputs[0].text, "a text");
  EXPECT_TRUE(request.inputs[0].tokens.empty());
  EXPECT_FALSE(request.base64);
  EXPECT_FALSE(request.dimensions);
}

TEST(EmbeddingsRequestTest, AListOfStringsIsAsManyInputsInTheirOrder) {
  const EmbeddingsRequest request = parsed(body(R"(["b","a"])"));
  ASSERT_EQ(request.inputs.size(), 2U);
  EXPECT_EQ(request.inputs[0].text, "b");
  EXPECT_EQ(request.inputs[1].text, "a");
}

TEST(EmbeddingsRequestTest, TokenIdsAreOneInputAndListsOfThemSeveral) {
  EXPECT_EQ(parsed(body("[1,2147483647]")).inputs[0].tokens,
            (std::vector<engine::Token>{1, 2147483647}));
  const EmbeddingsRequest request = parsed(body("[[1],[2,3]]"));
  ASSERT_EQ(request.inputs.size(), 2U);
  EXPECT_EQ(request.inputs[1].tokens, (std::vector<engine::Token>{2, 3}));
}

TEST(EmbeddingsRequestTest, TheOtherFieldsSayWhatTheySay) {
  const EmbeddingsRequest request =
      parsed(body(R"("x")", R"(,"encoding_format":"base64","dimensions":3,"user":"u","new":[1])"));
  EXPECT_TRUE(request.base64);
  EXPECT_EQ(request.dimensions, 3U);
  EXPECT_FALSE(parsed(body(R"("x")", R"(,"encoding_format":"float","dimensions":null)")).base64);
}

TEST(EmbeddingsRequestTest, WholeNumbersMayBeWrittenAsFractions) {
  const EmbeddingsRequest request = parsed(body("[1.0,2,3e0]", R"(,"dimensions":3.0)"));
  ASSERT_EQ(request.inputs.size(), 1U);
  EXPECT_EQ(request.inputs[0].tokens, (std::vector<engine::Token>{1, 2, 3}));
  EXPECT_EQ(request.dimensions, 3U);
  EXPECT_EQ(parsed(body(R"("x")", R"(,"dimensions":4294967296)")).dimensions, 4294967295U);
}

TEST(EmbeddingsRequestTest, WhatIsWrongIsNamed) {
  EXPECT_EQ(refused("[]"), "the body should be a JSON object");
  EXPECT_EQ(refused(R"({"input":"x"})"), "model: Field required");
  EXPECT_EQ(refused(R"({"model":"m"})"), "input: Field required");
  EXPECT_EQ(refused(body(R"("")")), "input: String should have at least 1 character");
  EXPECT_EQ(refused(body(R"(["a",""])")), "input.1: String should have at least 1 character");
  EXPECT_EQ(refused(body("[]")), "input: List should have 1 to 2048 items");
  EXPECT_EQ(refused(body("[[]]")), "input.0: List should have at least 1 item");
  EXPECT_EQ(refused(body(R"(["a",1])")), "input.1: Input should be a string, as the first one is");
  EXPECT_EQ(refused(body("[1,-1]")), "input.1: Input should be a token id");
  EXPECT_EQ(refused(body("[1,2147483648]")), "input.1: Input should be a token id");
  EXPECT_EQ(refused(body("[1.5]")), "input.0: Input should be a token id");
  EXPECT_EQ(refused(body(R"([[1],"a"])")), "input.1: Input should be a list of token ids");
  EXPECT_EQ(refused(body("{}")), "input: Input should be a string or a list");
  EXPECT_EQ(refused(body(R"("x")", R"(,"encoding_format":"int8")")),
            R"(encoding_format: Input should be "float" or "base64")");
  EXPECT_EQ(refused(body(R"("x")", R"(,"dimensions":0)")),
            "dimensions: Input should be a whole number of at least 1");
}

std::string list_of(std::size_t count, std::string_view item) {
  std::string list = "[";
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) list += ',';
    list += item;
  }
  return list + ']';
}

TEST(EmbeddingsRequestTest, InputsTextAndTokensAreBounded) {
  EXPECT_EQ(parsed(body(list_of(kEmbeddingInputsMax, "\"a\""))).inputs.size(), kEmbeddingInputsMax);
  EXPECT_EQ(refused(body(list_of(kEmbeddingInputsMax + 1, "\"a\""))),
            "input: List should have 1 to 2048 items");
  const std::string half = '"' + std::string(kEmbeddingTextBytesMax / 2, 'a') + '"';
  EXPECT_EQ(parsed(body(list_of(2, half))).inputs.size(), 2U);
  EXPECT_EQ(refused(body('[' + half + ',' + half + ",\"b\"]")),
            "input.2: all texts together should have at most 4194304 bytes");
  const std::string rows = list_of(kEmbeddingTokensMax / 1000, list_of(1000, "12345"));
  EXPECT_EQ(parsed(body(rows)).inputs.size(), 300U);
  EXPECT_EQ(refused(body(rows.substr(0, rows.size() - 1) + ",[7]]")),
            "input.300: all inputs together should have at most 300000 tokens");
}

TEST(EmbeddingsAnswerTest, IsWrittenAsOpenAisClientsReadIt) {
  EmbeddingsAnswer answer(false);
  const std::vector<float> first{0.5F, -1e-9F};
  const std::vector<float> second{1.0F, 0.1F};
  answer.append(first);
  answer.append(second);
  EXPECT_EQ(answer.finish("a \"model\"", 7),
            R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1e-09]},)"
            R"({"object":"embedding","index":1,"embedding":[1,0.1]}],"model":"a \"model\"",)"
            R"("usage":{"prompt_tokens":7,"total_tokens":7}})");
}

TEST(EmbeddingsAnswerTest, Base64IsOfFloatsInLittleEndian) {
  EmbeddingsAnswer answer(true);
  const std::vector<float> vector{1.0F, -2.0F};
  answer.append(vector);
  const json::value body = json::parse(answer.finish("m", 1));
  const json::string& text = body.at("data").at(0).at("embedding").as_string();
  using namespace std::string_view_literals;
  EXPECT_EQ(from_base64(std::string_view(text)), "\0\0\x80\x3f\0\0\0\xc0"sv);
}

}  // namespace
}  // namespace pensieve::api
