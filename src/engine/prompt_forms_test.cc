#include "engine/prompt_forms.h"

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

}  // namespace
}  // namespace pensieve::engine
