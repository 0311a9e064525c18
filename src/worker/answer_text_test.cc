#include "worker/answer_text.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "worker/call_parser.h"

namespace pensieve::worker {
namespace {

using engine::AnswerPiece;
using Kind = AnswerPiece::Kind;
using Pieces = std::vector<AnswerPiece>;

const std::string kCall =
    "<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":\"x y\"}}\n</tool_call>";

/// What is told of `text`, byte by byte, neighbours of one kind as one, and the stop that was met.
struct Told {
  Pieces pieces;
  std::optional<std::string> met;
};
Told tell(std::vector<std::string> stops, std::shared_ptr<engine::AnswerParser> parser,
          const std::string& text) {
  AnswerText answer(std::move(stops), std::move(parser));
  Pieces all;
  for (const char c : text) {
    for (AnswerPiece& piece : answer.push(std::string_view(&c, 1))) all.push_back(piece);
    if (answer.met()) break;
  }
  for (AnswerPiece& piece : answer.finish()) all.push_back(piece);
  Told told{{}, answer.met()};
  for (const AnswerPiece& piece : all) {
    if (!told.pieces.empty() && told.pieces.back().kind == piece.kind) {
      told.pieces.back().text += piece.text;
    } else {
      told.pieces.push_back(piece);
    }
  }
  return told;
}

std::shared_ptr<engine::AnswerParser> constrained() {
  return std::make_shared<CallParser>(CallParser::Trust::kConstrained);
}

TEST(AnswerTextTest, WithoutAParserAllIsText) {
  const Told told = tell({"END"}, nullptr, "one ENtwo END three");
  EXPECT_EQ(told.pieces, (Pieces{{Kind::kText, "one ENtwo "}}));
  EXPECT_EQ(told.met, "END");
}

TEST(AnswerTextTest, HowACallIsSpelledStopsNothing) {
  const Told told = tell({"\n", "<tool_call>", "}\n"}, constrained(), "Hi" + kCall);
  EXPECT_EQ(told.met, std::nullopt);
  EXPECT_EQ(told.pieces, (Pieces{{Kind::kText, "Hi"},
                                 {Kind::kCallStart, "f"},
                                 {Kind::kCallInput, R"({"a":"x y"})"},
                                 {Kind::kCallEnd, ""}}));
}

TEST(AnswerTextTest, AStopInACallsInputLeavesTheCallWithoutAnEnd) {
  const Told told = tell({"x y"}, constrained(), kCall);
  EXPECT_EQ(told.met, "x y");
  EXPECT_EQ(told.pieces, (Pieces{{Kind::kCallStart, "f"}, {Kind::kCallInput, R"({"a":")"}}));
}

TEST(AnswerTextTest, PartOfAStopInACallsInputIsHeldBackAndThenTold) {
  AnswerText answer({"x z"}, constrained());
  std::string input;
  const auto take = [&input](const Pieces& pieces) {
    for (const AnswerPiece& piece : pieces) {
      if (piece.kind == Kind::kCallInput) input += piece.text;
    }
  };
  take(answer.push("<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":\"x "));
  EXPECT_EQ(input, R"({"a":")");
  take(answer.push("y\"}}\n</tool_call>"));
  EXPECT_EQ(input, R"({"a":"x y"})");
}

TEST(AnswerTextTest, AStopDoesNotSpanTwoBlocks) {
  const Told told = tell({"b{"}, constrained(), "ab" + kCall + "\ncd");
  EXPECT_EQ(told.met, std::nullopt);
  EXPECT_EQ(told.pieces.front(), (AnswerPiece{Kind::kText, "ab"}));
  EXPECT_EQ(told.pieces.back(), (AnswerPiece{Kind::kText, "cd"}));
}

TEST(AnswerTextTest, AStopThatTheParserHeldBackIsMetAtTheEnd) {
  const Told told = tell({"\n\n"}, constrained(), "Hi\n\n");
  EXPECT_EQ(told.met, "\n\n");
  EXPECT_EQ(told.pieces, (Pieces{{Kind::kText, "Hi"}}));
}

TEST(AnswerTextTest, ThoughtsAreNotStopped) {
  engine::Prompt prompt;
  engine::Prepared prepared;
  prepared.thinking = engine::ThinkingForm{"<think>", "</think>", true};
  const Told told =
      tell({"\n\n", "see"}, answer_parser_for(prompt, prepared), "I see\n\nit</think>\n\nYes.");
  EXPECT_EQ(told.met, std::nullopt);
  EXPECT_EQ(told.pieces, (Pieces{{Kind::kThinking, "I see\n\nit"}, {Kind::kText, "Yes."}}));
}

TEST(AnswerTextTest, NoHalfCharacterReachesTheParser) {
  const Told told = tell({}, constrained(), "\xe2\x82\xac\xe2\x82");
  EXPECT_EQ(told.pieces, (Pieces{{Kind::kText, "\xe2\x82\xac\xef\xbf\xbd"}}));
}

TEST(AnswerTextTest, CallsAreReadOnlyWhereThereMayBeSome) {
  engine::Prompt prompt;
  engine::Prepared prepared;
  EXPECT_EQ(answer_parser_for(prompt, prepared), nullptr);
  prompt.tools = {{"f", "", "{}"}};
  EXPECT_NE(answer_parser_for(prompt, prepared), nullptr);
  prompt.rules.tool_choice = engine::ToolChoice::kNone;
  EXPECT_EQ(answer_parser_for(prompt, prepared), nullptr);
}

}  // namespace
}  // namespace pensieve::worker
