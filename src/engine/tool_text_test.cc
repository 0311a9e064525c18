#include "engine/tool_text.h"

#include <gtest/gtest.h>

#include "engine/structural_tag.h"

namespace pensieve::engine {
namespace {

Tool weather() {
  return {"get_weather", "Says \"how\"", R"({"type":"object"})"};
}

TEST(ToolTextTest, JsonStringsEscapeWhatTheyMust) {
  EXPECT_EQ(json_string("a\"\\\n\x01\xC3\xA9"), "\"a\\\"\\\\\\n\\u0001\xC3\xA9\"");
}

TEST(ToolTextTest, ACallIsWrittenAsTheGrammarDemandsIt) {
  EXPECT_EQ(call_text({"id", "f", R"({"a":1})"}),
            "<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>");
}

TEST(ToolTextTest, TheOfferEndsTheLeadingSystemMessage) {
  Prompt prompt{.messages = {{Role::kSystem, "Be brief."}, {Role::kUser, "hi"}}};
  prompt.tools = {weather()};
  const Prompt plain = with_tools_as_text(prompt);
  ASSERT_EQ(plain.messages.size(), 2U);
  EXPECT_TRUE(plain.messages[0].text.starts_with("Be brief.\n\n# Tools\n"));
  EXPECT_NE(plain.messages[0].text.find("<tools>\n" + tool_line(weather()) + "\n</tools>"),
            std::string::npos);
}

TEST(ToolTextTest, TheOfferIsASystemMessageWhereThereIsNone) {
  Prompt prompt{.messages = {{Role::kUser, "hi"}}};
  prompt.tools = {weather()};
  const Prompt plain = with_tools_as_text(prompt);
  ASSERT_EQ(plain.messages.size(), 2U);
  EXPECT_EQ(plain.messages[0].role, Role::kSystem);
}

TEST(ToolTextTest, NothingIsOfferedWhereNoToolIsShownOrMayBeCalled) {
  Prompt prompt{.messages = {{Role::kUser, "hi"}}};
  prompt.tools = {weather()};
  prompt.tools[0].shown = false;
  EXPECT_EQ(with_tools_as_text(prompt).messages.size(), 1U);
  prompt.tools[0].shown = true;
  prompt.rules.tool_choice = ToolChoice::kNone;
  EXPECT_EQ(with_tools_as_text(prompt).messages.size(), 1U);
}

TEST(ToolTextTest, CallsEndTheirTurnAndResultsAreTheUsers) {
  Message call{.role = Role::kAssistant, .text = "I look."};
  call.calls = {{"1", "f", "{}"}};
  Prompt prompt{.messages = {{Role::kUser, "hi"},
                             call,
                             {Role::kTool, "sun"},
                             {Role::kTool, ""},
                             {Role::kUser, "and?"}}};
  const Prompt plain = with_tools_as_text(prompt);
  ASSERT_EQ(plain.messages.size(), 3U);
  EXPECT_EQ(plain.messages[1].text, "I look.\n" + call_text(call.calls[0]));
  EXPECT_EQ(plain.messages[2].role, Role::kUser);
  EXPECT_EQ(plain.messages[2].text,
            "<tool_response>\nsun\n</tool_response>\n<tool_response>\n\n</tool_response>\nand?");
}

TEST(StructuralTagTest, WithoutToolsAndSchemaEveryTextIsRight) {
  EXPECT_EQ(structural_tag({.messages = {{Role::kUser, "hi"}}}, plain_spelling(), {}), "");
}

TEST(ToolTextTest, ThoughtsAndTheirRulesStay) {
  Prompt prompt{.messages = {{Role::kUser, "a"}}};
  prompt.messages.push_back({.role = Role::kAssistant, .text = "b", .thinking = "c"});
  prompt.rules.thinking_tokens_max = 7;
  prompt.rules.effort = "low";
  const Prompt plain = with_tools_as_text(prompt);
  EXPECT_EQ(plain.messages.at(1).thinking, "c");
  EXPECT_EQ(plain.rules.thinking_tokens_max, 7U);
  EXPECT_EQ(plain.rules.effort, "low");
}

}  // namespace
}  // namespace pensieve::engine
