// Equal content gives equal prompts: what clients change needlessly must not cost a cached prefix.
#include <string>
#include <string_view>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "api/prompt.h"
#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

constexpr std::string_view kHi = R"([{"role":"user","content":"hi"}])";

std::string with_system(std::string_view system) {
  return prompt_of(kHi, R"("system":)" + std::string(system));
}

TEST(CanonicalTest, AStringIsOneTextBlock) {
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":[{"type":"text","text":"hi"}]}])"), "u: hi\n");
  EXPECT_EQ(prompt_of(kHi), "u: hi\n");
  EXPECT_EQ(with_system(R"([{"type":"text","text":"s"}])"), with_system(R"("s")"));
}

TEST(CanonicalTest, CacheControlAndKeyOrderAndSpaceDoNotMatter) {
  EXPECT_EQ(
      prompt_of(
          R"([ {"content":[{"cache_control":{"type":"ephemeral"}, "text":"\u0068i","type":"text"}],
               "role":"user"} ])"),
      prompt_of(kHi));
}

TEST(CanonicalTest, BlocksAndMergedMessagesAndLinesAreJoinedAlike) {
  const std::string expected = "u: a\nb\n";
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"a\nb"}])"), expected);
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])"),
            expected);
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":[{"type":"text","text":"a"},)"
                      R"({"type":"text","text":"b"}]}])"),
            expected);
}

TEST(CanonicalTest, EmptyTextsAndMessagesVanish) {
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":[{"type":"text","text":""},)"
                      R"({"type":"text","text":"hi"}]},{"role":"assistant","content":[]},)"
                      R"({"role":"system","content":""}])"),
            "u: hi\n");
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"a"},{"role":"assistant","content":""},)"
                      R"({"role":"user","content":"b"}])"),
            "u: a\nb\n");
}

TEST(CanonicalTest, AConversationWithoutAnyContentIsRefused) {
  constexpr std::string_view kRefused =
      "refused: messages: at least one user or assistant message must have content";
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":""}])"), kRefused);
  EXPECT_EQ(prompt_of(R"([{"role":"assistant","content":" \n"}])"), kRefused);
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":[]}])", R"("system":"s")"), kRefused);
  EXPECT_EQ(prompt_of(R"([{"role":"system","content":"s"}])"), kRefused);
  EXPECT_EQ(prompt_of(R"([{"role":"assistant","content":" "}])", R"("system":"s")"), kRefused);
}

TEST(CanonicalTest, SystemMessagesStayWhereTheyStand) {
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"a"},{"role":"system","content":"b"},)"
                      R"({"role":"user","content":"c"},{"role":"assistant","content":"d"},)"
                      R"({"role":"system","content":"e"}])",
                      R"("system":"top")"),
            "s: top\nu: a\ns: b\nu: c\na: d\ns: e\n");
  EXPECT_EQ(prompt_of(R"([{"role":"system","content":"b"},{"role":"user","content":"c"}])",
                      R"("system":"a")"),
            "s: a\nb\nu: c\n");
}

TEST(CanonicalTest, BillingLinesAreGone) {
  constexpr std::string_view kLine = "x-anthropic-billing-header: cc_version=2.1.330.572; cc_x=1;";
  const std::string block = R"({"type":"text","text":")" + std::string(kLine) + R"("})";
  EXPECT_EQ(with_system("[" + block + R"(,{"type":"text","text":"s"}])"), with_system(R"("s")"));
  EXPECT_EQ(with_system("[" + block + "]"), prompt_of(kHi));
  EXPECT_EQ(with_system("\"" + std::string(kLine) + R"(\ns\nt")"), with_system(R"("s\nt")"));
  EXPECT_EQ(with_system(R"("Not x-anthropic-billing-header: at the start")"),
            "s: Not x-anthropic-billing-header: at the start\nu: hi\n");
}

TEST(CanonicalTest, ABillingLineInAUserMessageIsTheUsers) {
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"x-anthropic-billing-header: what is it?"}])"),
            "u: x-anthropic-billing-header: what is it?\n");
}

TEST(CanonicalTest, ALastAssistantMessageIsContinuedWithoutItsTrailingSpace) {
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"a"},{"role":"assistant","content":" {\n "}])"),
            "u: a\na:  {\n...");
  EXPECT_EQ(prompt_of(R"([{"role":"user","content":"a"},{"role":"assistant","content":" \n"}])"),
            "u: a\n");
  EXPECT_EQ(prompt_of(R"([{"role":"assistant","content":"a "},{"role":"user","content":"b "}])"),
            "a: a \nu: b \n");
}

TEST(CanonicalTest, ATurnOfThoughtsAloneVanishesAndItsNeighboursAreOne) {
  for (const char* block : {R"({"type":"thinking","thinking":"t","signature":""})",
                            R"({"type":"redacted_thinking","data":"x"})"}) {
    EXPECT_EQ(prompt_of(fmt::format(R"([{{"role":"user","content":"a"}},)"
                                    R"({{"role":"assistant","content":[{}]}},)"
                                    R"({{"role":"user","content":"b"}}])",
                                    block)),
              "u: a\nb\n");
  }
}

TEST(CanonicalTest, ASystemMessageForOneTurnIsGoneAfterIt) {
  const auto conversation = [](std::string_view clear_at, std::string_view after) {
    return prompt_of(fmt::format(
        R"([{{"role":"user","content":"a"}},{{"role":"system","content":"s","clear_at":{}}}{}])",
        clear_at, after));
  };
  constexpr std::string_view kAnswer = R"(,{"role":"assistant","content":"b"})";
  const std::string more = std::string(kAnswer) + R"(,{"role":"user","content":"c"})";
  EXPECT_EQ(conversation(R"("next_user_message")", ""), "u: a\ns: s\n");
  EXPECT_EQ(conversation(R"("next_user_message")", kAnswer), "u: a\ns: s\na: b\n...");
  EXPECT_EQ(conversation(R"("next_user_message")", more), "u: a\na: b\nu: c\n");
  for (const std::string_view keeps : {R"("never")", "null", "1"}) {
    EXPECT_EQ(conversation(keeps, more), "u: a\ns: s\na: b\nu: c\n") << keeps;
  }
}

/// Two calls, then this user turn.
std::string after_calls(std::string_view turn) {
  const std::string prompt = prompt_of(
      R"([{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"n","input":{}},)"
      R"({"type":"tool_use","id":"2","name":"n","input":{}}]},)" +
      std::string(turn) + "]");
  return prompt.substr(prompt.find("u: "));
}

TEST(CanonicalTest, ToolResultsFollowTheOrderOfTheirCalls) {
  const std::string expected =
      "u: <tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>\nthen\n";
  constexpr std::string_view kFirst = R"({"type":"tool_result","tool_use_id":"1","content":"a"})";
  constexpr std::string_view kSecond = R"({"type":"tool_result","tool_use_id":"2","content":"b"})";
  constexpr std::string_view kText = R"({"type":"text","text":"then"})";
  const auto turn = [](auto... blocks) {
    std::string list;
    ((list += (list.empty() ? "" : ",") + std::string(blocks)), ...);
    return R"({"role":"user","content":[)" + list + "]}";
  };
  EXPECT_EQ(after_calls(turn(kFirst, kSecond, kText)), expected);
  EXPECT_EQ(after_calls(turn(kSecond, kFirst, kText)), expected);
  EXPECT_EQ(after_calls(turn(kSecond) + "," + turn(kFirst) + "," + turn(kText)), expected);
}

TEST(CanonicalTest, ResultsThatAnswerNoCallComeLastInTheirOwnOrder) {
  EXPECT_EQ(after_calls(R"({"role":"user","content":[)"
                        R"({"type":"tool_result","tool_use_id":"y","content":"y"},)"
                        R"({"type":"tool_result","tool_use_id":"x","content":"x"},)"
                        R"({"type":"tool_result","tool_use_id":"2","content":"b"}]})"),
            "u: <tool_response>\nb\n</tool_response>\n<tool_response>\ny\n</tool_response>\n"
            "<tool_response>\nx\n</tool_response>\n");
}

}  // namespace
}  // namespace pensieve::api
