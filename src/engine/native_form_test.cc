#include "engine/native_form.h"

#include <gtest/gtest.h>

#include "engine/grammar_text.h"
#include "engine/native_marks.h"
#include "engine/native_text.h"
#include "engine/structural_tag.h"
#include "engine/testing/byte_vocabulary.h"
#include "engine/token_grammar.h"

namespace pensieve::engine {
namespace {

/// How many bytes of `text` the grammar takes, and whether it may end there.
class NativeGrammarTest : public testing::Test {
 protected:
  std::size_t taken(const std::string& grammar, std::string_view text, bool* may_end = nullptr) {
    const auto compiled = compiler_.compile(tag_of_format(grammar_format(grammar)));
    if (!compiled) {
      ADD_FAILURE() << compiled.error().message << "\n" << grammar;
      return 0;
    }
    TokenMatcher matcher(*compiled);
    std::size_t count = 0;
    for (const char c : text) {
      if (!matcher.accept(static_cast<unsigned char>(c))) break;
      ++count;
    }
    if (may_end) *may_end = matcher.accept(kEnd);
    return count;
  }
  bool takes(const std::string& grammar, std::string_view text) {
    bool may_end = false;
    return taken(grammar, text, &may_end) == text.size() && may_end;
  }

  GrammarCompiler compiler_{byte_pieces(), {kEnd}};
};

TEST(GrammarTextTest, PiecesAreAllOfABody) {
  const std::string_view body = R"(("a\"b" name-1{1,2} | [^"x\]]* other)?)";
  std::string all;
  std::vector<std::string_view> names;
  for (const GrammarPiece& piece : grammar_pieces(body)) {
    all += piece.text;
    if (piece.kind == GrammarPiece::Kind::kName) names.push_back(piece.text);
  }
  EXPECT_EQ(all, body);
  EXPECT_EQ(names, (std::vector<std::string_view>{"name-1", "other"}));
}

TEST(GrammarTextTest, APrefixIsForTheNamesOfItsOwnRulesAlone) {
  EXPECT_EQ(with_prefix("root ::= \"root\" a Regex(\"a\")\na ::= | [a] root\n", "x-"),
            "x-root ::= \"root\" x-a Regex(\"a\")\nx-a ::= \"\" | [a] x-root\n");
}

TEST(GrammarTextTest, ALiteralIsTheTextAgain) {
  const std::string text = "a\"b\\c\nd\te";
  EXPECT_EQ(literal_text(grammar_literal(text)), text);
}

TEST_F(NativeGrammarTest, TextIsNoCallThatTheFirstBraceOpens) {
  const std::string grammar = no_object_grammar("root", {"read", "write"});
  for (const char* text : {"", "Hello", R"({"name": "Oslo"})", R"(see {"a":{"name":"read"}})", "{",
                           R"({ "type" : "object"})", R"({"name": "rea)", "{}", "{\n[1]"}) {
    EXPECT_TRUE(takes(grammar, text)) << text;
  }
  EXPECT_EQ(taken(grammar, R"({"name": "read", )"), 14U);
  EXPECT_EQ(taken(grammar, "So {\n \"name\"\t:\"write\""), 20U);
  EXPECT_EQ(taken(grammar, R"({"type": "function", )"), 18U);
}

TEST_F(NativeGrammarTest, AStringAsItIsKeepsItsSchema) {
  const auto grammar = [](std::string_view schema) {
    return native_text_grammar(schema, "\n</p>", pattern_grammar);
  };
  const std::string choice = grammar(R"({"enum":["a <b>","c\"d"]})");
  EXPECT_TRUE(takes(choice, "a <b>"));
  EXPECT_TRUE(takes(choice, "c\"d"));
  EXPECT_EQ(taken(choice, "b"), 0U);
  const std::string pattern = grammar(R"({"type":"string","pattern":"^[a-c]{2}$"})");
  EXPECT_TRUE(takes(pattern, "ab"));
  EXPECT_EQ(taken(pattern, "abc"), 2U);
  const std::string date = grammar(R"({"type":"string","format":"date"})");
  EXPECT_TRUE(takes(date, "2024-02-29"));
  EXPECT_FALSE(takes(date, "2024-02-30"));
  const std::string least = grammar(R"({"type":"string","minLength":2})");
  EXPECT_FALSE(takes(least, "a"));
  EXPECT_TRUE(takes(least, "ab < \"c\"\nd"));
  EXPECT_EQ(taken(least, "ab\n</p>"), 6U) << "the end is not part of it";
  const std::string most = grammar(R"({"type":"string","minLength":1,"maxLength":3})");
  EXPECT_TRUE(takes(most, "\xc3\xa9 a"));
  EXPECT_EQ(taken(most, "abcd"), 3U);
}

TEST(NativeCallsTest, AnArgumentIsTextWhereAnyStringIsRight) {
  using Kind = TaggedArgument::Kind;
  const NativeArguments tagged{ArgumentsForm::kTagged, "</p>", true};
  const auto calls = native_calls({{"t", "", R"({"type":"object","properties":{
      "any":{},"text":{"type":"string"},"maybe":{"anyOf":[{"type":"string"},{"type":"null"}]},
      "mode":{"enum":["a","b"]},"size":{"type":"integer"},"mixed":{"enum":["a",1]},
      "far":{"$ref":"#/$defs/far"},"never":false},
      "required":["size"],"$defs":{"far":{"type":"string","maxLength":3}}})"}},
                                  tagged);
  ASSERT_EQ(calls.size(), 1U);
  std::vector<std::pair<std::string, Kind>> kinds;
  for (const TaggedArgument& argument : calls[0].arguments) {
    kinds.emplace_back(argument.name, argument.kind);
    EXPECT_EQ(argument.is_required, argument.name == "size");
  }
  EXPECT_EQ(kinds, (std::vector<std::pair<std::string, Kind>>{{"any", Kind::kAnyText},
                                                              {"text", Kind::kAnyText},
                                                              {"maybe", Kind::kAnyText},
                                                              {"mode", Kind::kText},
                                                              {"size", Kind::kJson},
                                                              {"mixed", Kind::kJson},
                                                              {"far", Kind::kText}}));
}

TEST_F(NativeGrammarTest, AStringElsewhereInTheSchemaKeepsItsLimits) {
  const auto calls = native_calls({{"t", "", R"({"type":"object","properties":{
      "far":{"$ref":"#/$defs/far"},"one":{"anyOf":[{"enum":["x"]}]}},
      "$defs":{"far":{"enum":["left","right"]}}})"}},
                                  {ArgumentsForm::kTagged, "</p>", true});
  ASSERT_EQ(calls.at(0).arguments.size(), 2U);
  const auto grammar = [&](std::size_t i) {
    return native_text_grammar(calls[0].arguments[i].schema, "</p>", pattern_grammar);
  };
  EXPECT_TRUE(takes(grammar(0), "right"));
  EXPECT_EQ(taken(grammar(0), "up"), 0U);
  EXPECT_EQ(taken(grammar(1), "y"), 0U);
}

TEST(NativeCallsTest, AChoiceOfObjectsIsAsManyWaysToCall) {
  using Kind = TaggedArgument::Kind;
  const NativeArguments tagged{ArgumentsForm::kTagged, "</p>", true};
  const auto calls = native_calls({{"t", "", R"({"anyOf":[
      {"type":"object","properties":{"a":{"type":"string"}},"required":["a"]},
      {"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}}}]})"}},
                                  tagged);
  ASSERT_EQ(calls.size(), 2U);
  // What is text in one and JSON in the other could not be read.
  EXPECT_EQ(calls[0].arguments.at(0).kind, Kind::kJson);
  EXPECT_EQ(calls[1].arguments.at(0).kind, Kind::kJson);
  EXPECT_EQ(tools_to_read(calls).size(), 1U);
  EXPECT_EQ(stand_ins(calls).size(), 2U);
  EXPECT_TRUE(native_calls({{"t", "", R"({"type":"string"})"}}, tagged).at(0).arguments.empty());
}

TEST(NativeFormTest, AFormThatIsNotKnownIsRefused) {
  const NativeArguments object{ArgumentsForm::kObject};
  const ValueGrammars values{[](const NativeCall&, const std::string&) { return "root ::= \"1\""; },
                             [](const std::string&, std::string_view) { return "root ::= \"1\""; }};
  const NativeForm other{.grammar = "root ::= \"<call>\" \"zqxt0000\"\n", .marks = {"<call>"}};
  EXPECT_FALSE(with_calls(other, object, {{"read", "{}"}}, values));
  EXPECT_FALSE(form_of_heads(other.grammar));
  EXPECT_FALSE(form_of_objects(other.grammar, "<assistant>"));
  EXPECT_EQ(native_arguments(other).form, ArgumentsForm::kUnknown);
}

}  // namespace
}  // namespace pensieve::engine
