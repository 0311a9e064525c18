#include "api/thinking.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace pensieve::api {
namespace {

constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();

struct Read {
  ThinkingDisplay display = ThinkingDisplay::kNone;
  std::uint32_t budget = 0;
  std::string effort;
  bool operator==(const Read&) const = default;
};

std::expected<Read, std::string> read(std::string_view body, std::uint32_t max_tokens = 40000) {
  engine::AnswerRules rules;
  const auto display = parse_thinking(boost::json::parse(body).get_object(), max_tokens, rules);
  if (!display) return std::unexpected(display.error().field + ": " + display.error().reason);
  return Read{*display, rules.thinking_tokens_max, rules.effort};
}

TEST(ThinkingTest, NothingAndDisabledMeanNoThoughts) {
  EXPECT_EQ(*read("{}"), Read{});
  EXPECT_EQ(*read(R"({"thinking":null})"), Read{});
  EXPECT_EQ(*read(R"({"thinking":{"type":"disabled","display":"omitted"}})"), Read{});
  EXPECT_EQ(*read(R"({"thinking":{"type":"between_tools"}})"), Read{});
}

TEST(ThinkingTest, EnabledHasItsBudget) {
  EXPECT_EQ(*read(R"({"thinking":{"type":"enabled","budget_tokens":1024}})"),
            (Read{ThinkingDisplay::kShown, 1024, ""}));
  EXPECT_EQ(read(R"({"thinking":{"type":"enabled","budget_tokens":1023}})").error(),
            "thinking.budget_tokens: Input should be greater than or equal to 1024");
  EXPECT_EQ(read(R"({"thinking":{"type":"enabled"}})").error(),
            "thinking.budget_tokens: Field required");
  EXPECT_EQ(read(R"({"thinking":{"type":"enabled","budget_tokens":"x"}})").error(),
            "thinking.budget_tokens: Input should be a valid integer");
}

TEST(ThinkingTest, AQuarterIsKeptForTheAnswer) {
  EXPECT_EQ(read(R"({"thinking":{"type":"enabled","budget_tokens":31999}})", 32000)->budget,
            24000U);
  EXPECT_EQ(read(R"({"thinking":{"type":"adaptive"}})", 1)->budget, 1U);
}

TEST(ThinkingTest, AdaptiveFollowsTheEffort) {
  const auto budget = [](const std::string& effort) {
    return read(R"({"thinking":{"type":"adaptive"},"output_config":{"effort":")" + effort + "\"}}",
                kMost)
        ->budget;
  };
  EXPECT_EQ(budget("low"), 2048U);
  EXPECT_EQ(budget("medium"), 8192U);
  for (const char* more : {"high", "xhigh", "max", "enormous"}) {
    EXPECT_EQ(budget(more), kMost - kMost / 4) << more;
  }
  EXPECT_EQ(read(R"({"output_config":{"effort":"xhigh"}})")->effort, "high");
  EXPECT_EQ(read(R"({"output_config":{"effort":3}})").error(),
            "output_config.effort: Input should be a valid string");
}

TEST(ThinkingTest, DisplayOmittedHidesThoughtsAndOthersShowThem) {
  const auto display = [](const std::string& name) {
    return read(R"({"thinking":{"type":"adaptive","display":")" + name + "\"}}")->display;
  };
  EXPECT_EQ(display("omitted"), ThinkingDisplay::kOmitted);
  for (const char* shown : {"summarized", "updates", "anything"}) {
    EXPECT_EQ(display(shown), ThinkingDisplay::kShown);
  }
}

TEST(ThinkingTest, AnotherTypeIsRefusedByName) {
  EXPECT_EQ(read(R"({"thinking":{"type":"deep"}})").error(),
            "thinking.type: Input should be 'adaptive', 'enabled', 'between_tools' or 'disabled'");
  EXPECT_EQ(read(R"({"thinking":true})").error(), "thinking: Input should be an object");
}

TEST(ThinkingTest, ASignatureHoldsTheThoughts) {
  for (const std::string text : {"", "a", "ab", "abc", "abcd", "größer\n\"quoted\"\x01"}) {
    EXPECT_EQ(thinking_in(thinking_signature(text)), text);
  }
}

TEST(ThinkingTest, OtherSignaturesHoldNothing) {
  EXPECT_EQ(thinking_in(""), std::nullopt);
  EXPECT_EQ(thinking_in("EqQBCkYIBBgCKkAx"), std::nullopt);
  EXPECT_EQ(thinking_in(thinking_signature("abc") + "!"), std::nullopt);
  EXPECT_EQ(thinking_in(thinking_signature("\xff")), std::nullopt);
  EXPECT_EQ(thinking_in(thinking_signature("\xe2\x82")), std::nullopt);
}

}  // namespace
}  // namespace pensieve::api
