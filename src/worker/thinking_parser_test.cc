#include "worker/thinking_parser.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "worker/call_parser.h"

namespace pensieve::worker {
namespace {

using engine::AnswerPiece;
using engine::ThinkingForm;
using Kind = AnswerPiece::Kind;

const ThinkingForm kForm{"<think>", "</think>", false};
const ThinkingForm kOpened{"<think>", "</think>", true};

/// The pieces of `text`, cut into parts of `step` bytes; neighbours of one kind are one.
std::vector<AnswerPiece> read(const ThinkingForm& form, const std::string& text,
                              std::size_t step = 1,
                              std::shared_ptr<engine::AnswerParser> rest = nullptr) {
  ThinkingParser parser(form, std::move(rest));
  std::vector<AnswerPiece> pieces;
  for (std::size_t at = 0; at < text.size(); at += step) {
    parser.push(std::string_view(text).substr(at, step), pieces);
  }
  parser.finish(pieces);
  std::vector<AnswerPiece> merged;
  for (const AnswerPiece& piece : pieces) {
    if (!merged.empty() && merged.back().kind == piece.kind) {
      merged.back().text += piece.text;
    } else {
      merged.push_back(piece);
    }
  }
  return merged;
}

using Pieces = std::vector<AnswerPiece>;

TEST(ThinkingParserTest, ThoughtsComeOffTheFrontHoweverTheTextIsCut) {
  const Pieces wanted = {{Kind::kThinking, "Hm,\n\nlet me see."}, {Kind::kText, "Yes."}};
  for (const std::size_t step : {1U, 2U, 3U, 5U, 100U}) {
    EXPECT_EQ(read(kForm, "\n<think>\nHm,\n\nlet me see.\n</think>\n\nYes.", step), wanted);
    EXPECT_EQ(read(kOpened, "\nHm,\n\nlet me see.\n</think>\n\nYes.", step), wanted);
  }
}

TEST(ThinkingParserTest, AnAnswerThatBeginsOtherwiseHasNoThoughts) {
  EXPECT_EQ(read(kForm, " <b> no <think>x</think>"),
            (Pieces{{Kind::kText, " <b> no <think>x</think>"}}));
  EXPECT_EQ(read(kForm, "<thin"), (Pieces{{Kind::kText, "<thin"}}));
}

TEST(ThinkingParserTest, EmptyThoughtsAreNone) {
  EXPECT_EQ(read(kForm, "<think>\n\n</think>\n\nHi"), (Pieces{{Kind::kText, "Hi"}}));
}

TEST(ThinkingParserTest, ThoughtsThatBeginAgainBeforeAnythingIsSaidGoOn) {
  const Pieces wanted = {{Kind::kThinking, "Hm.\n\nOr\nnot?"}, {Kind::kText, "Yes."}};
  for (const std::size_t step : {1U, 2U, 3U, 5U, 100U}) {
    EXPECT_EQ(read(kForm, "<think>\nHm.\n</think>\n\n<think>\nOr\nnot?\n</think>\n\nYes.", step),
              wanted);
    EXPECT_EQ(read(kOpened, "Hm.</think><think></think> <think>Or\nnot?</think>Yes.", step),
              wanted);
  }
  EXPECT_EQ(read(kOpened, "</think><think>a</think>b"),
            (Pieces{{Kind::kThinking, "a"}, {Kind::kText, "b"}}));
  EXPECT_EQ(read({"", "</think>", true}, "a</think>b"),
            (Pieces{{Kind::kThinking, "a"}, {Kind::kText, "b"}}));
}

TEST(ThinkingParserTest, WhatDoesNotBecomeAMarkBehindThoughtsIsText) {
  const Pieces wanted = {{Kind::kThinking, "a"}, {Kind::kText, "<thin"}};
  EXPECT_EQ(read(kForm, "<think>a</think>\n<thin"), wanted);
  EXPECT_EQ(read(kForm, "<think>a</think>\n<thin", 100), wanted);
}

TEST(ThinkingParserTest, MarksBehindTheFirstWordAreText) {
  EXPECT_EQ(read(kForm, "<think>a</think>It writes <think>b</think>."),
            (Pieces{{Kind::kThinking, "a"}, {Kind::kText, "It writes <think>b</think>."}}));
}

TEST(ThinkingParserTest, ThoughtsThatWereCutOffAreToldWhole) {
  EXPECT_EQ(read(kOpened, "one two </thi"), (Pieces{{Kind::kThinking, "one two </thi"}}));
}

TEST(ThinkingParserTest, WhatMayBecomeTheEndIsHeldBack) {
  ThinkingParser parser(kOpened, nullptr);
  Pieces pieces;
  parser.push("a </th", pieces);
  EXPECT_EQ(pieces, (Pieces{{Kind::kThinking, "a"}}));
  parser.push("e b", pieces);
  EXPECT_EQ(pieces.back(), (AnswerPiece{Kind::kThinking, " </the b"}));
}

TEST(ThinkingParserTest, SaysWhetherItIsInsideTheThoughts) {
  ThinkingParser parser(kForm, nullptr);
  std::vector<AnswerPiece> pieces;
  const auto after = [&](const char* text) {
    parser.push(text, pieces);
    return parser.is_thinking();
  };
  EXPECT_FALSE(parser.is_thinking());
  EXPECT_FALSE(after("\n<thi"));
  EXPECT_TRUE(after("nk>"));
  EXPECT_TRUE(after("a </think"));
  EXPECT_FALSE(after(">"));
  EXPECT_FALSE(after("b<think>"));
  EXPECT_TRUE(ThinkingParser(kOpened, nullptr).is_thinking());
}

TEST(ThinkingParserTest, CallsInThoughtsAreThoughtsAndCallsBehindThemAreCalls) {
  const std::string call = "<tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call>";
  const Pieces pieces = read(kForm, "<think>" + call + "</think>\n" + call, 4,
                             std::make_shared<CallParser>(CallParser::Trust::kFree));
  ASSERT_EQ(pieces.size(), 4U);
  EXPECT_EQ(pieces[0], (AnswerPiece{Kind::kThinking, call}));
  EXPECT_EQ(pieces[1], (AnswerPiece{Kind::kCallStart, "f"}));
}

}  // namespace
}  // namespace pensieve::worker
