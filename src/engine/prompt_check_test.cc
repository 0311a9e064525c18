#include "engine/prompt_check.h"

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

Prompt loop() {
  Message call{.role = Role::kAssistant, .text = "I look."};
  call.calls = {{"id", "look", R"({"path":"a \"b\"","n":1})"}};
  Message result{.role = Role::kTool, .text = "found"};
  return {{{Role::kSystem, "Be brief."}, {Role::kUser, "Go"}, call, result}};
}

TEST(PromptCheck, AllThereInOrderIsWhole) {
  EXPECT_TRUE(keeps_all(loop(), R"(Be brief. Go I look. look {"path": "a \"b\"", "n": 1} found)"));
  EXPECT_TRUE(
      keeps_all(loop(), R"(Be brief. Go <look><path>a "b"</path><n>1</n></look>I look. found)"));
}

TEST(PromptCheck, EachPartThatIsMissingIsMissed) {
  EXPECT_FALSE(keeps_all(loop(), R"(Go I look. look path a "b" found)"));
  EXPECT_FALSE(keeps_all(loop(), R"(Be brief. Go look path a "b" found)"));
  EXPECT_FALSE(keeps_all(loop(), R"(Be brief. Go I look. path a "b" found)"));
  EXPECT_FALSE(keeps_all(loop(), R"(Be brief. Go I look. look path a b found)"));
  EXPECT_FALSE(keeps_all(loop(), R"(Be brief. Go I look. look path a "b")"));
}

TEST(PromptCheck, AMessageInAnotherPlaceIsMissed) {
  const Prompt late{{{Role::kUser, "one"}, {Role::kSystem, "late"}, {Role::kUser, "two"}}};
  EXPECT_TRUE(keeps_all(late, "one late two"));
  EXPECT_FALSE(keeps_all(late, "late one two"));
}

TEST(PromptCheck, WordsStandForTextsAndArguments) {
  const Prompt words = with_words(loop());
  EXPECT_EQ(words.messages[0].text, "zqxword0xqz");
  EXPECT_EQ(words.messages[2].text, "zqxword2xqz");
  EXPECT_EQ(words.messages[2].calls[0].arguments, R"({"input":"zqxword3xqz"})");
  EXPECT_EQ(words.messages[2].calls[0].name, "look");
  EXPECT_EQ(words.messages[2].calls[0].id, "id");
}

}  // namespace
}  // namespace pensieve::engine
