#include "engine/answer_grammar.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/testing/byte_vocabulary.h"

namespace pensieve::engine {
namespace {

class AnswerGrammarTest : public testing::Test {
 protected:
  static Prompt calling(std::vector<Tool> tools) {
    Prompt prompt;
    prompt.tools = std::move(tools);
    prompt.rules.tool_choice = ToolChoice::kAny;
    return prompt;
  }
  /// How much of `text` the answer to `prompt` may begin with.
  std::size_t taken(const Prompt& prompt, const std::string& text) {
    const auto grammar = grammars_.of(prompt, plain_spelling());
    EXPECT_TRUE(grammar) << grammar.error().message;
    TokenMatcher matcher(*grammar);
    std::size_t bytes = 0;
    while (bytes < text.size() && matcher.accept(static_cast<unsigned char>(text[bytes]))) ++bytes;
    return bytes;
  }
  static std::string call(const std::string& name, const std::string& arguments) {
    return "<tool_call>\n{\"name\":\"" + name + "\",\"arguments\":" + arguments;
  }

  static inline const Tool kGood = {
      "good", "", R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]})"};
  static inline const Tool kBad = {"bad", "", R"({"$ref":"#/nowhere"})"};

  AnswerGrammars grammars_{byte_pieces(), {kEnd}};
};

TEST_F(AnswerGrammarTest, NothingToKeepIsNoGrammar) {
  const auto grammar = grammars_.of(Prompt(), plain_spelling());
  ASSERT_TRUE(grammar);
  EXPECT_EQ(*grammar, nullptr);
}

TEST_F(AnswerGrammarTest, AHopelessSchemaBecomesAnObjectAndTheOthersStay) {
  const Prompt prompt = calling({kGood, kBad});
  for (int time = 0; time < 2; ++time) {  // The second time it is known.
    const std::string bad = call("bad", R"({"x":["y"]})");
    EXPECT_EQ(taken(prompt, bad), bad.size());
    EXPECT_EQ(taken(prompt, call("bad", "[")), call("bad", "").size());
    const std::string good = call("good", R"({"a":1})");
    EXPECT_EQ(taken(prompt, good), good.size());
    EXPECT_EQ(taken(prompt, call("good", R"({"b)")), call("good", R"({")").size());
  }
}

TEST_F(AnswerGrammarTest, AHopelessSchemaOfTheAnswerBecomesAnyJson) {
  Prompt prompt;
  prompt.rules.json_schema = R"({"$ref":"#/nowhere"})";
  EXPECT_EQ(taken(prompt, R"({"x":1})"), 7U);
  EXPECT_EQ(taken(prompt, "Sure"), 0U);
}

TEST_F(AnswerGrammarTest, ToolsThatAreTooLongTogetherAreStillOffered) {
  std::string choices;
  for (int i = 0; i < 40'000; ++i) {
    choices += (i > 0 ? "," : "") + ("\"choice number " + std::to_string(i) + "\"");
  }
  std::vector<Tool> tools;
  for (int i = 0; i < 8; ++i) {
    tools.push_back(
        {"tool_" + std::to_string(i), "",
         R"({"type":"object","properties":{"a":{"enum":[)" + choices + R"(]}},"required":["a"]})"});
  }
  const std::string any = call("tool_7", R"({"a":)");
  EXPECT_EQ(taken(calling(tools), any), any.size());
}

}  // namespace
}  // namespace pensieve::engine
