// The script language, without an engine: which bytes and actions belong to which place.
#include "engine/script.h"

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

using std::chrono::milliseconds;

/// The whole answer, at most 100 tokens of it, with `|` between tokens.
std::string said(const Script& script) {
  std::string text;
  for (std::uint64_t position = 0; position < 100; ++position) {
    const Moment moment = script.at(position);
    if (!moment.piece) return text;
    if (position > 0) text += '|';
    text += *moment.piece;
  }
  return text + "...";
}

TEST(SplitPieces, LosesNothingAndCutsLongRuns) {
  const std::string text =
      " one\n\n two  " + std::string(130, 'x') + std::string(70, ' ') + "end \n";
  std::string joined;
  for (std::string_view piece : split_pieces(text)) joined += piece;
  EXPECT_EQ(joined, text);
  EXPECT_EQ(split_pieces("one two").size(), 2U);
  EXPECT_EQ(split_pieces(std::string(64, 'x')).size(), 1U);
  EXPECT_EQ(split_pieces(std::string(65, 'x')).size(), 2U);
  EXPECT_TRUE(split_pieces("").empty());
}

TEST(Script, EchoesTextThatIsNoScript) {
  EXPECT_EQ(said(Script::parse("hello  there")), "You| said:| hello|  there");
  EXPECT_EQ(said(Script::parse("a script: say b")), "You| said:| a| script:| say| b");
}

TEST(Script, SaysOneTokenAWord) {
  EXPECT_EQ(said(Script::parse("script: say one  two; say three\nsay four")),
            "one| two| three| four");
  EXPECT_EQ(said(Script::parse("script:")), "");
  EXPECT_EQ(said(Script::parse("script: say")), "");
}

TEST(Script, CallsAToolInTheFormThatReadersKnow) {
  const Script script = Script::parse(R"(script: call Read {"path": "a b"}; say done)");
  std::string text;
  for (std::uint64_t position = 0; script.at(position).piece; ++position) {
    text += *script.at(position).piece;
  }
  EXPECT_EQ(
      text,
      "<tool_call>\n{\"name\":\"Read\",\"arguments\":{\"path\": \"a b\"}}\n</tool_call> done");
  EXPECT_EQ(said(Script::parse("script: call Read")), "unknown| statement:| call| Read");
}

TEST(Script, SaysItsPartsInTurn) {
  const std::string text = "script: say a; then; say b; then; say c";
  EXPECT_EQ(said(Script::parse(text, 0)), "a");
  EXPECT_EQ(said(Script::parse(text, 1)), "b");
  EXPECT_EQ(said(Script::parse(text, 2)), "c");
  EXPECT_EQ(said(Script::parse(text, 3)), "c");
}

TEST(Script, BeginsAtAnyLine) {
  EXPECT_EQ(said(Script::parse("<reminder>\nscript: say a")), "a");
}

TEST(Script, RepeatsAndNeverEnds) {
  EXPECT_EQ(said(Script::parse("script: repeat 3 la; say end")), "la| la| la| end");
  EXPECT_EQ(said(Script::parse("script: repeat 0 la; say end")), "end");
  EXPECT_EQ(Script::parse("script: repeat 4000000000 la").at(3'999'999'999).piece, " la");
  EXPECT_EQ(Script::parse("script: repeat 4000000000 la").at(4'000'000'000).piece, std::nullopt);
  EXPECT_EQ(Script::parse("script: endless la").at(UINT64_MAX).piece, " la");
}

TEST(Script, BytesAreRaw) {
  EXPECT_EQ(said(Script::parse("script: bytes 20c3; bytes A9; say x")), " \xC3|\xA9| x");
  EXPECT_EQ(said(Script::parse("script: bytes c3a")), "unknown| statement:| bytes| c3a");
}

TEST(Script, DelayHoldsForEachLaterToken) {
  const Script script = Script::parse("script: say a; delay 5; say b c; delay 0; say d");
  EXPECT_EQ(script.at(0).delay, milliseconds(0));
  EXPECT_EQ(script.at(1).delay, milliseconds(5));
  EXPECT_EQ(script.at(2).delay, milliseconds(5));
  EXPECT_EQ(script.at(3).delay, milliseconds(0));
}

TEST(Script, AnActionBelongsToTheTokenThatFollowsIt) {
  const Script script = Script::parse("script: grow 3; say a b; slow 7; fail; say c; exit 9");
  ASSERT_EQ(script.at(0).actions.size(), 1U);
  EXPECT_EQ(script.at(0).actions[0].deed, Deed::kGrow);
  EXPECT_EQ(script.at(0).actions[0].amount, 3U);
  EXPECT_TRUE(script.at(1).actions.empty());
  ASSERT_EQ(script.at(2).actions.size(), 2U);
  EXPECT_EQ(script.at(2).actions[0].deed, Deed::kSlow);
  EXPECT_EQ(script.at(2).actions[1].deed, Deed::kFail);
  ASSERT_EQ(script.at(3).actions.size(), 1U);
  EXPECT_EQ(script.at(3).actions[0].deed, Deed::kExit);
  EXPECT_EQ(script.at(3).piece, std::nullopt);
}

TEST(Script, OnceTakesAnActionAndNothingElse) {
  const Moment moment = Script::parse("script: once /a/b grow 2; say x").at(0);
  ASSERT_EQ(moment.actions.size(), 1U);
  EXPECT_EQ(moment.actions[0].once_path, "/a/b");
  EXPECT_EQ(moment.actions[0].deed, Deed::kGrow);
  // Whether it spoke could not be told from the tokens, and the script would lose its place.
  EXPECT_EQ(said(Script::parse("script: once /a/b say x")),
            "unknown| statement:| once| /a/b| say| x");
}

TEST(Script, AnAttemptIsOneTokenWhoseTextComesFromTrying) {
  const Script script = Script::parse("script: try read /a/b; say x; try connect 80; say y");
  ASSERT_TRUE(script.at(0).attempt);
  EXPECT_EQ(script.at(0).attempt->kind, Attempt::Kind::kRead);
  EXPECT_EQ(script.at(0).attempt->target, "/a/b");
  EXPECT_EQ(script.at(0).piece, "");
  EXPECT_FALSE(script.at(1).attempt);
  EXPECT_EQ(script.at(1).piece, " x");
  ASSERT_TRUE(script.at(2).attempt);
  EXPECT_EQ(script.at(2).attempt->kind, Attempt::Kind::kConnect);
  EXPECT_EQ(script.at(2).piece, " ");
  EXPECT_EQ(script.at(3).piece, " y");
  EXPECT_EQ(script.at(4).piece, std::nullopt);
}

TEST(Script, AnUnknownStatementIsNamedInTheAnswer) {
  EXPECT_EQ(said(Script::parse("script: dance now; say on")),
            "unknown| statement:| dance| now| on");
  for (const char* wrong :
       {"repeat x y", "repeat 2", "repeat 2 a b", "endless", "delay", "delay -1", "grow",
        "exit 99999999999", "abort 1", "once", "once /a/b", "bytes", "try", "try read",
        "try fly /a", "try read /a /b", "try connect x", "try signal 0"}) {
    EXPECT_EQ(said(Script::parse(std::string("script:") + wrong)).rfind("unknown| statement:", 0),
              0U)
        << wrong;
  }
}

TEST(ScriptTest, ThoughtsStandInFrontAndCanBeCut) {
  const auto text_of = [](const Script& script) {
    std::string text;
    for (std::uint64_t at = 0; const auto piece = script.at(at).piece; ++at) text += *piece;
    return text;
  };
  Script script = Script::parse("script: think one two three; say Yes.");
  EXPECT_EQ(text_of(script), "<think>\none two three\n</think> Yes.");
  script.limit_thinking(3);
  EXPECT_EQ(text_of(script), "<think>\none two three\n</think> Yes.");
  script.limit_thinking(2);
  EXPECT_EQ(text_of(script), "<think>\none two\n</think> Yes.");
  script.limit_thinking(0);
  EXPECT_EQ(text_of(script), "<think>\n</think> Yes.");
}

}  // namespace
}  // namespace pensieve::engine
