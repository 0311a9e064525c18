#include "engine/prompt_forms.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

/// One line per message: `s|u|a: text`, `+` at the end where the last one is continued.
std::string shown(const Prompt& prompt) {
  std::string text;
  for (const Message& message : prompt.messages) {
    text += message.role == Role::kSystem ? "s: " : message.role == Role::kUser ? "u: " : "a: ";
    text += message.text + "|";
  }
  return text + (prompt.continues_last ? "+" : "");
}

TEST(PromptForms, TheFirstIsThePromptItself) {
  const Prompt prompt{{{Role::kUser, "u"}, {Role::kSystem, "s"}}, false};
  EXPECT_EQ(shown(prompt_forms(prompt).at(0)), "u: u|s: s|");
}

TEST(PromptForms, LaterSystemMessagesGoIntoTheUserTurnNextToThem) {
  const std::vector<Prompt> forms = prompt_forms({{{Role::kSystem, "one"},
                                                   {Role::kSystem, "two"},
                                                   {Role::kUser, "u1"},
                                                   {Role::kSystem, "late"},
                                                   {Role::kAssistant, "a1"},
                                                   {Role::kSystem, "later"},
                                                   {Role::kUser, "u2"},
                                                   {Role::kAssistant, "a2"}},
                                                  true});
  const std::string rest =
      "u1\n<system-reminder>\nlate\n</system-reminder>|a: a1|"
      "u: <system-reminder>\nlater\n</system-reminder>\nu2|a: a2|+";
  EXPECT_EQ(shown(forms.at(1)), "s: one\ntwo|u: " + rest);
  EXPECT_EQ(shown(forms.at(2)), "u: one\ntwo\n" + rest);
}

TEST(PromptForms, ASystemMessageBetweenTurnsOfTheAssistantKeepsThemApart) {
  const Prompt prompt{{{Role::kUser, "u"},
                       {Role::kAssistant, "a1"},
                       {Role::kSystem, "s"},
                       {Role::kAssistant, "a2"}},
                      false};
  EXPECT_EQ(shown(prompt_forms(prompt).at(1)),
            "u: u|a: a1|u: <system-reminder>\ns\n</system-reminder>|a: a2|");
}

TEST(PromptForms, AnAssistantThatBeginsFollowsAnEmptyUserTurn) {
  const Prompt prompt{{{Role::kSystem, "s"}, {Role::kAssistant, "a"}}, true};
  EXPECT_EQ(shown(prompt_forms(prompt).at(1)), "s: s|u: |a: a|+");
  EXPECT_EQ(shown(prompt_forms(prompt).at(2)), "u: s|a: a|+");
}

TEST(PromptForms, ALoneSystemMessageIsTheUsers) {
  EXPECT_EQ(shown(prompt_forms({{{Role::kSystem, "s"}}, false}).at(1)), "u: s|");
}

Message call_turn(std::string text, std::vector<std::string> ids) {
  Message turn{.role = Role::kAssistant, .text = std::move(text)};
  for (std::string& id : ids) turn.calls.push_back({std::move(id), "look", "{}"});
  return turn;
}

Message result_of(std::string id, std::string text) {
  Message result{.role = Role::kTool, .text = std::move(text)};
  result.tool_call_id = std::move(id);
  return result;
}

/// One line per message: role, text, ids.
std::string shown_calls(const Prompt& prompt) {
  std::string text;
  for (const Message& message : prompt.messages) {
    text += message.role == Role::kTool ? "t" : message.role == Role::kUser ? "u" : "a";
    text += ":" + message.text + message.tool_call_id;
    for (const ToolCall& call : message.calls) text += "(" + call.id + ")";
    text += "|";
  }
  return text;
}

TEST(PromptForms, WithoutNeedsCallsStayAsTheyAre) {
  const Prompt prompt{{{Role::kUser, "u"},
                       call_turn("text", {"1", "2"}),
                       result_of("1", "r"),
                       result_of("2", "r"),
                       {Role::kUser, "more"}}};
  for (const Prompt& form : prompt_forms(prompt)) EXPECT_EQ(form.messages, prompt.messages);
}

TEST(PromptForms, ShortIdsAreNineLettersAndDigitsAndTheSameForCallAndResult) {
  const std::string id = "toolu_01A09q90qw90lq917835lq91";
  const std::string id_short = short_id(id);
  EXPECT_EQ(id_short.size(), 9U);
  EXPECT_EQ(id_short.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz"), std::string::npos);
  EXPECT_NE(id_short, short_id("toolu_01A09q90qw90lq917835lq92"));
  EXPECT_EQ(short_id("a"), "grr4viogn");  // What is cached of a prompt hangs on it.
  const Prompt prompt{{{Role::kUser, "u"}, call_turn("", {id}), result_of(id, "r")}};
  EXPECT_EQ(shown_calls(prompt_forms(prompt, {.short_ids = true})[0]),
            "u:u|a:(" + id_short + ")|t:r" + id_short + "|");
}

TEST(PromptForms, SingleCallsHaveTheirResultBehindThem) {
  const Prompt prompt{{{Role::kUser, "u"},
                       call_turn("text", {"1", "2", "3"}),
                       result_of("2", "r"),
                       result_of("1", "r"),
                       result_of("9", "r"),
                       {Role::kUser, "more"}}};
  EXPECT_EQ(shown_calls(prompt_forms(prompt, {.single_calls = true})[0]),
            "u:u|a:text(1)|t:r1|a:(2)|t:r2|a:(3)|t:r9|u:more|");
}

TEST(PromptForms, TextBehindResultsEndsTheLastOfThemAsTheUsers) {
  const Prompt prompt{{{Role::kUser, "u"},
                       call_turn("", {"1"}),
                       result_of("1", "r"),
                       {Role::kSystem, "late"},
                       {Role::kUser, "more"}}};
  EXPECT_EQ(shown_calls(prompt_forms(prompt, {.joined_results = true})[1]),
            "u:u|a:(1)|t:r\n<user>\n<system-reminder>\nlate\n</system-reminder>\nmore\n"
            "</user>1|");
}

TEST(PromptForms, ApartTextsStandBeforeTheirCalls) {
  const Prompt prompt{{{Role::kUser, "u"}, call_turn("text", {"1", "2"})}};
  EXPECT_EQ(shown_calls(prompt_forms(prompt, {.apart_texts = true})[0]), "u:u|a:text|a:(1)(2)|");
  EXPECT_EQ(shown_calls(prompt_forms(prompt, {.apart_texts = true, .empty_turns = true})[0]),
            "u:u|a:text|u:|a:(1)(2)|");
}

TEST(PromptForms, ThoughtsStandInFrontOfTheirTextsBetweenMarksThatNobodyWrote) {
  const std::string mark = "\xEE\x83\xB4";
  Prompt prompt{{{Role::kUser, "I write " + mark},
                 {.role = Role::kAssistant, .text = "answer", .thinking = "thought"},
                 {Role::kUser, "u"},
                 {.role = Role::kAssistant, .text = "open", .thinking = "late"}},
                true};
  const ThoughtMarks marks = unused_marks(prompt);
  EXPECT_EQ(marks.begin, mark + mark);
  const Prompt said = with_thoughts_as_text(prompt, marks);
  EXPECT_EQ(said.messages[1].text, marks.begin + "\nthought\n" + marks.end + "\n\nanswer");
  EXPECT_EQ(said.messages[1].thinking, "");
  EXPECT_EQ(said.messages[3], prompt.messages[3]);
}

}  // namespace
}  // namespace pensieve::engine
