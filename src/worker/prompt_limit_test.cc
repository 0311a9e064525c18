#include "worker/prompt_limit.h"

#include <algorithm>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "engine/testing/scripted.h"
#include "worker/testing/temp_folder.h"

namespace pensieve::worker {
namespace {

engine::Prompt prompt(std::string text) {
  return {.messages = {{engine::Role::kUser, std::move(text)}}};
}

std::string words(std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += "word ";
  text.resize(bytes);
  return text;
}

class PromptLimitTest : public testing::Test {
 protected:
  PromptLimitTest() {
    const std::string model = folder_.write("m.script", "context_tokens 8192\n");
    EXPECT_TRUE(engine_->load({.model_path = model}, [](float) {}));
  }
  Result<std::uint64_t> count(const std::string& text) {
    return count_tokens(*engine_, prompt(text), 8192, [this] { ++pieces_; });
  }
  static constexpr std::size_t kMost = 8192 * 16;

  TempFolder folder_;
  std::unique_ptr<engine::Engine> engine_ = engine::make_scripted_engine([] {});
  int pieces_ = 0;
};

TEST_F(PromptLimitTest, AWindowTakesSixteenBytesATokenAndSmallOnesSixtyFourKib) {
  EXPECT_EQ(engine::prompt_bytes_max(8192), kMost);
  EXPECT_EQ(engine::prompt_bytes_max(16), 64U << 10);
}

TEST_F(PromptLimitTest, OneByteMoreThanTheWindowTakesIsToldAsClientsKnowIt) {
  EXPECT_FALSE(too_long(kMost, 8192));
  EXPECT_EQ(too_long(kMost + 1, 8192), "prompt is too long: 32768 tokens > 8191 maximum");
  EXPECT_FALSE(too_long(8 * kMost, 8192, 8));
  EXPECT_TRUE(too_long(8 * kMost + 1, 8192, 8));
}

TEST_F(PromptLimitTest, TheTextOfAllMessagesCounts) {
  engine::Prompt two = prompt("12345");
  two.messages.push_back({engine::Role::kAssistant, "678"});
  EXPECT_EQ(text_bytes(two), 8U);
}

TEST_F(PromptLimitTest, CallsThoughtsAndShownToolsCountToo) {
  engine::Prompt all = prompt("12345");
  engine::Message answer{.role = engine::Role::kAssistant, .thinking = "12"};
  answer.calls = {{"id", "f", "{}"}};
  all.messages.push_back(answer);
  all.tools = {{"f", "abc", "{}"}, {"deferred", "abc", "{}", false}};
  EXPECT_EQ(text_bytes(all), 5U + 2 + 3 + 6);
}

TEST_F(PromptLimitTest, WhatFitsIsCountedInOneGo) {
  EXPECT_EQ(*count(words(kMost)), engine_->tokenize(prompt(words(kMost)))->size());
  EXPECT_EQ(pieces_, 0);
}

TEST_F(PromptLimitTest, WhatDoesNotIsCountedInPiecesAndALittleTooHigh) {
  const std::uint64_t whole = engine_->tokenize(prompt(words(5 * kMost)))->size();
  const Result<std::uint64_t> counted = count(words(5 * kMost));
  ASSERT_TRUE(counted);
  EXPECT_GE(*counted, whole);
  EXPECT_LE(*counted, whole + whole / 100);
  EXPECT_GE(pieces_, 10);
}

TEST_F(PromptLimitTest, LongToolsAreCountedInPiecesLikeLongTexts) {
  engine::Prompt tools = prompt("hi");
  tools.tools = {{"f", words(3 * kMost), "{}"}};
  const Result<std::uint64_t> counted = count_tokens(*engine_, tools, 8192, [this] { ++pieces_; });
  ASSERT_TRUE(counted);
  EXPECT_GE(*counted, engine_->tokenize(prompt(words(3 * kMost)))->size());
  EXPECT_GE(pieces_, 6);
}

TEST_F(PromptLimitTest, TextWithoutSpacesIsCutBetweenCharacters) {
  std::string text;
  while (text.size() < 2 * kMost) text += "\xe2\x82\xac";
  EXPECT_TRUE(count(text));
  EXPECT_GE(pieces_, 4);
}

TEST_F(PromptLimitTest, BeyondEightTimesItIsNotEvenCounted) {
  const Result<std::uint64_t> counted = count(words(8 * kMost + 1));
  ASSERT_FALSE(counted);
  EXPECT_EQ(counted.error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace pensieve::worker
