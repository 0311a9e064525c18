#include "worker/call_parser.h"

#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "engine/tool_text.h"

namespace pensieve::worker {
namespace {

using engine::AnswerPiece;
using Kind = AnswerPiece::Kind;
using Trust = CallParser::Trust;

/// An answer as a client sees it: pieces of one kind in a row are one.
std::string shown(const std::vector<AnswerPiece>& pieces) {
  std::string out;
  Kind last = Kind::kCallEnd;
  for (const AnswerPiece& piece : pieces) {
    switch (piece.kind) {
      case Kind::kText:
        out += (last == Kind::kText ? "" : "[text:") + piece.text;
        break;
      case Kind::kThinking:
        out += "[thinking:" + piece.text;
        break;
      case Kind::kCallStart:
        out += (last == Kind::kText ? "][" : "[") + piece.text + ":";
        break;
      case Kind::kCallInput:
        out += piece.text;
        break;
      case Kind::kCallEnd:
        out += "]";
        break;
    }
    last = piece.kind;
  }
  return out;
}

/// Pushes `text` in pieces of `step` bytes.
std::string parsed(std::string_view text, Trust trust, std::size_t step) {
  CallParser parser(trust);
  std::vector<AnswerPiece> pieces;
  for (std::size_t at = 0; at < text.size(); at += step) parser.push(text.substr(at, step), pieces);
  parser.finish(pieces);
  return shown(pieces);
}

const std::string kCall = engine::call_text({"", "Read", R"({"path":"a}</tool_call>\"b"})"});

struct Case {
  std::string text;
  std::string wanted;
};

class CallParserAnywhereTest : public testing::TestWithParam<std::tuple<Trust, std::size_t>> {
 protected:
  void expect(const Case& wanted) {
    const auto [trust, step] = GetParam();
    EXPECT_EQ(parsed(wanted.text, trust, step), wanted.wanted) << wanted.text;
  }
};
INSTANTIATE_TEST_SUITE_P(, CallParserAnywhereTest,
                         testing::Combine(testing::Values(Trust::kConstrained, Trust::kFree),
                                          testing::Values(1U, 2U, 7U, 1000U)));

TEST_P(CallParserAnywhereTest, TextIsText) {
  expect({"Hello, <tool> world  ", "[text:Hello, <tool> world  "});
  expect({"", ""});
  expect({" <tool_cal", "[text: <tool_cal"});
}

TEST_P(CallParserAnywhereTest, ACallIsACall) {
  expect({kCall, R"([Read:{"path":"a}</tool_call>\"b"}])"});
}

TEST_P(CallParserAnywhereTest, WhiteSpaceAroundCallsBelongsToNobody) {
  expect({"I look. \n\n" + kCall + "\n\n" + kCall + "\n Done.",
          R"([text:I look.][Read:{"path":"a}</tool_call>\"b"}])"
          R"([Read:{"path":"a}</tool_call>\"b"}][text:Done.)"});
}

TEST_P(CallParserAnywhereTest, WhiteSpaceInsideACallIsFree) {
  expect({"<tool_call> { \"name\" : \"f\" ,\n\"arguments\": {\"n\": [1, {}]} } </tool_call>",
          R"([f:{"n": [1, {}]}])"});
}

TEST_P(CallParserAnywhereTest, AClosingThatIsMissingIsNotMissed) {
  expect({"<tool_call>{\"name\":\"f\",\"arguments\":{}} and more", "[f:{}][text:and more"});
}

TEST_P(CallParserAnywhereTest, WhatIsNoCallIsText) {
  for (const std::string& text :
       {std::string("a\n<tool_call>\n[1]"), std::string("<tool_call>\n{\"arguments\":{}}"),
        std::string("<tool_call>{\"name\":\"\",\"arguments\":{}}"),
        std::string("<tool_call>{\"name\":\"f\",\"arguments\":7}"),
        std::string("<tool_call>{\"name\":7}")}) {
    expect({text, "[text:" + text});
  }
}

TEST_P(CallParserAnywhereTest, ANameMayHaveEscapes) {
  expect({"<tool_call>{\"name\":\"a\\\"\\u0062\",\"arguments\":{}}</tool_call>", "[a\"b:{}]"});
}

TEST(CallParserTest, FreeArgumentsThatAreNoJsonAreText) {
  for (const std::string& text :
       {std::string("x <tool_call>{\"name\":\"f\",\"arguments\":{a:1}}"),
        std::string("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":")}) {
    EXPECT_EQ(parsed(text, Trust::kFree, 1), "[text:" + text);
  }
}

TEST(CallParserTest, ConstrainedArgumentsThatAreCutOffStayOpen) {
  EXPECT_EQ(parsed("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":", Trust::kConstrained, 3),
            "[f:{\"a\":");
}

TEST(CallParserTest, AConstrainedCallThatIsCutOffInItsHeadIsLeftOut) {
  for (const char* head : {"<tool_call>", "<tool_call>\n{\"name", "<tool_call>{\"name\":\"f\","}) {
    EXPECT_EQ(parsed(fmt::format("a {}", head), Trust::kConstrained, 3), "[text:a");
    EXPECT_EQ(parsed(head, Trust::kFree, 3), fmt::format("[text:{}", head));
  }
}

TEST(CallParserTest, ConstrainedArgumentsGoOutAsTheyCome) {
  CallParser parser(Trust::kConstrained);
  std::vector<AnswerPiece> pieces;
  parser.push("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\"", pieces);
  EXPECT_EQ(pieces,
            (std::vector<AnswerPiece>{{Kind::kCallStart, "f"}, {Kind::kCallInput, "{\"a\""}}));
}

TEST(CallParserTest, TextGoesOutAsSoonAsItIsDecided) {
  CallParser parser(Trust::kFree);
  std::vector<AnswerPiece> pieces;
  parser.push("Hello ", pieces);
  EXPECT_EQ(pieces, (std::vector<AnswerPiece>{{Kind::kText, "Hello"}}));
}

TEST(CallParserTest, AHeadWithoutEndIsTextOnceItIsTooLong) {
  CallParser parser(Trust::kFree);
  std::vector<AnswerPiece> pieces;
  parser.push("<tool_call>{\"name\":\"" + std::string(CallParser::kHeadBytesMax, 'x'), pieces);
  EXPECT_EQ(pieces.size(), 1U);
}

TEST(CallParserTest, FreeArgumentsThatAreTooLongAreText) {
  const std::string text = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"" +
                           std::string(CallParser::kArgumentsBytesMax, 'x') + "\"}}";
  EXPECT_EQ(parsed(text, Trust::kFree, 4096), "[text:" + text);
}

}  // namespace
}  // namespace pensieve::worker
