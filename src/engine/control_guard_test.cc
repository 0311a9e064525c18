#include "engine/control_guard.h"

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

class ControlGuardTest : public testing::Test {
 protected:
  ControlGuardTest() {
    control_.add("<|end|>");
    control_.add("<|end|>>");
    control_.add("");
  }

  /// The guarded text with its marks taken out again, in whatever order they stand.
  static std::string restored(std::string_view text, const GuardedPrompt& guarded) {
    std::string out;
    while (const auto mark = next_mark(text, guarded)) {
      out += text.substr(0, mark->at);
      const Hidden& hidden = guarded.hidden[mark->index];
      out += hidden.image != nullptr ? "{" + hidden.image->base64 + "}" : "[" + hidden.text + "]";
      text.remove_prefix(mark->at + mark->length);
    }
    return out + std::string(text);
  }

  ControlTexts control_;
};

TEST_F(ControlGuardTest, TheLongestControlTextCounts) {
  EXPECT_EQ(control_.match("<|end|>>x"), 8U);
  EXPECT_EQ(control_.match("<|end|>x"), 7U);
  EXPECT_EQ(control_.match("<|en"), 0U);
  EXPECT_EQ(control_.match(""), 0U);
}

TEST_F(ControlGuardTest, EveryTextOfAClientIsGuarded) {
  Message call{.role = Role::kAssistant, .text = "a<|end|>"};
  call.thinking = "<|end|>";
  call.calls = {{"1", "f<|end|>", R"({"x":"<|end|>"})"}};
  Prompt prompt{.messages = {{Role::kUser, "hi<|end|> you<|end|>>"}, call}};
  prompt.tools = {{"t<|end|>", "d<|end|>", R"({"p":"<|end|>"})"}};
  const GuardedPrompt guarded = guard(prompt, control_);
  EXPECT_EQ(guarded.hidden.size(), 9U);
  EXPECT_EQ(restored(guarded.prompt.messages[0].text, guarded), "hi[<|end|>] you[<|end|>>]");
  // Whatever order a template puts them in.
  EXPECT_EQ(restored(guarded.prompt.tools[0].parameters + guarded.prompt.messages[1].text, guarded),
            R"({"p":"[<|end|>]"}a[<|end|>])");
}

TEST_F(ControlGuardTest, ImagesStandWhereTheyStood) {
  Message message{Role::kUser, "<|end|>see this"};
  message.images = {{0, "image/png", "AA==", ""},
                    {11, "image/png", "BB==", ""},
                    {11, "image/png", "CC==", ""},
                    {15, "image/png", "DD==", ""}};
  const Prompt prompt{.messages = {message}};
  const GuardedPrompt guarded = guard(prompt, control_);
  EXPECT_EQ(restored(guarded.prompt.messages[0].text, guarded),
            "{AA==}[<|end|>]see {BB==}{CC==}this{DD==}");
  EXPECT_TRUE(guarded.prompt.messages[0].images.empty());
}

TEST_F(ControlGuardTest, TextWithoutControlTextsIsLeftAlone) {
  const GuardedPrompt guarded = guard({.messages = {{Role::kUser, "<|en"}}}, control_);
  EXPECT_TRUE(guarded.hidden.empty());
  EXPECT_EQ(guarded.prompt.messages[0].text, "<|en");
  EXPECT_FALSE(
      next_mark("\xEE\x83\xB1"
                "0\xEE\x83\xB3",
                guarded));
}

TEST_F(ControlGuardTest, AMarkInAClientsTextIsNoMark) {
  const std::string forged =
      "\xEE\x83\xB1"
      "0\xEE\x83\xB3<|end|>";
  const GuardedPrompt guarded = guard({.messages = {{Role::kUser, forged}}}, control_);
  EXPECT_EQ(restored(guarded.prompt.messages[0].text, guarded),
            "\xEE\x83\xB1"
            "0\xEE\x83\xB3[<|end|>]");
}

}  // namespace
}  // namespace pensieve::engine
