#include "engine/token_grammar.h"

#include <cmath>
#include <future>
#include <limits>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "engine/schema_formats.h"
#include "engine/structural_tag.h"
#include "engine/testing/byte_vocabulary.h"

namespace pensieve::engine {
namespace {

class TokenGrammarTest : public testing::Test {
 protected:
  TokenMatcher matcher(const Prompt& prompt) {
    const auto grammar = compiler_.compile(structural_tag(prompt, plain_spelling(), schema_format));
    EXPECT_TRUE(grammar.has_value()) << grammar.error().message;
    return TokenMatcher(grammar.value());
  }

  /// How much of `text` the grammar takes, and whether the answer may end there.
  struct Taken {
    std::size_t bytes = 0;
    bool may_end = false;
    bool operator==(const Taken&) const = default;
  };
  Taken take(const Prompt& prompt, std::string_view text) {
    TokenMatcher following = matcher(prompt);
    Taken taken;
    for (const char c : text) {
      if (!allows(following, static_cast<unsigned char>(c))) return taken;
      EXPECT_TRUE(following.accept(static_cast<unsigned char>(c)));
      ++taken.bytes;
    }
    taken.may_end = allows(following, kEnd);
    return taken;
  }

  static bool allows(TokenMatcher& following, Token token) {
    std::vector<float> logits(257, 1.0F);
    following.mask(logits);
    return std::isfinite(logits[static_cast<std::size_t>(token)]);
  }

  static Prompt with_tool(ToolChoice choice, bool parallel = true) {
    Prompt prompt;
    prompt.tools = {{"get_weather", "",
                     R"({"type":"object","properties":{"city":{"type":"string"},)"
                     R"("days":{"type":"integer"}},"required":["city"],)"
                     R"("additionalProperties":false})"}};
    prompt.rules.tool_choice = choice;
    prompt.rules.tool_name = "get_weather";
    prompt.rules.parallel_calls = parallel;
    return prompt;
  }

  GrammarCompiler compiler_{byte_pieces(), {kEnd}};
};

const std::string kCall =
    "<tool_call>\n{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Oslo\"}}\n</tool_call>";

TEST_F(TokenGrammarTest, AutoTakesTextAndCallsInAnyOrder) {
  const Prompt prompt = with_tool(ToolChoice::kAuto);
  for (const std::string& text :
       {std::string("Just text."), "Let me look.\n" + kCall, kCall + "\n" + kCall, std::string()}) {
    EXPECT_EQ(take(prompt, text), (Taken{text.size(), true})) << text;
  }
}

TEST_F(TokenGrammarTest, AfterTheMarkOnlyACallOfAKnownToolIsTaken) {
  const Prompt prompt = with_tool(ToolChoice::kAuto);
  const std::string head = "<tool_call>\n{\"name\":\"get_";
  EXPECT_EQ(take(prompt, head + "time").bytes, head.size());
}

TEST_F(TokenGrammarTest, ArgumentsKeepTheSchema) {
  const Prompt prompt = with_tool(ToolChoice::kAuto);
  const std::string head = "<tool_call>\n{\"name\":\"get_weather\",\"arguments\":{\"city\":";
  EXPECT_EQ(take(prompt, head + "5").bytes, head.size());
  const std::string other = head + "\"Oslo\",\"";
  EXPECT_EQ(take(prompt, other + "country").bytes, other.size());
  EXPECT_EQ(take(prompt, head + "\"Oslo\",\"days\":3}}\n</tool_call>").may_end, true);
}

TEST_F(TokenGrammarTest, NoWhiteSpaceIsTakenBetweenTheTokensOfArguments) {
  const Prompt prompt = with_tool(ToolChoice::kAuto);
  const std::string head = "<tool_call>\n{\"name\":\"get_weather\",\"arguments\":{\"city\":";
  EXPECT_EQ(take(prompt, head + " ").bytes, head.size());
}

TEST_F(TokenGrammarTest, AnyAndNamedBeginWithACall) {
  for (const ToolChoice choice : {ToolChoice::kAny, ToolChoice::kNamed}) {
    EXPECT_EQ(take(with_tool(choice), "Text"), (Taken{0, false}));
    EXPECT_EQ(take(with_tool(choice), kCall), (Taken{kCall.size(), true}));
  }
}

TEST_F(TokenGrammarTest, WithoutParallelCallsTheAnswerEndsWithTheFirst) {
  EXPECT_EQ(take(with_tool(ToolChoice::kAuto, false), kCall + "\n"), (Taken{kCall.size(), false}));
}

TEST_F(TokenGrammarTest, NoneTakesNoCall) {
  const Prompt prompt = with_tool(ToolChoice::kNone);
  EXPECT_EQ(take(prompt, "Text < tool").may_end, true);
  EXPECT_EQ(take(prompt, "<tool_call>").bytes, std::string("<tool_call").size());
}

TEST_F(TokenGrammarTest, ASchemaIsTheWholeAnswer) {
  Prompt prompt;
  prompt.rules.json_schema = R"({"type":"object","properties":{"n":{"type":"integer"}},)"
                             R"("required":["n"],"additionalProperties":false})";
  EXPECT_EQ(take(prompt, R"({"n":12})"), (Taken{8, true}));
  EXPECT_EQ(take(prompt, "Sure").bytes, 0U);
}

TEST_F(TokenGrammarTest, NumbersHaveAnEndAlsoWhereTheSchemaGivesThemNone) {
  for (const char* type : {"number", "integer"}) {
    Prompt prompt;
    prompt.rules.json_schema = std::string(R"({"type":")") + type + "\"}";
    for (const int spaces : {0, 1}) {
      const auto format = [spaces](std::string_view schema, int) {
        return schema_format(schema, spaces);
      };
      const auto grammar = compiler_.compile(structural_tag(prompt, plain_spelling(), format));
      ASSERT_TRUE(grammar) << grammar.error().message;
      TokenMatcher digits(*grammar);
      for (int i = 0; i < 19; ++i) EXPECT_TRUE(digits.accept('1')) << type;
      EXPECT_FALSE(digits.accept('1')) << type;
      EXPECT_TRUE(allows(digits, kEnd));
    }
  }
  Prompt number;
  number.rules.json_schema = R"({"type":"number"})";
  EXPECT_EQ(take(number, "-1.5e12"), (Taken{7, true}));
  EXPECT_EQ(take(number, "0." + std::string(20, '3')).bytes, 21U);
  EXPECT_EQ(take(number, "1e123").bytes, 4U);
}

TEST_F(TokenGrammarTest, NumbersWithOneBoundHaveAnEndToo) {
  for (const char* schema :
       {R"({"type":"integer","minimum":0})", R"({"type":"integer","minimum":-3})",
        R"({"type":"number","minimum":0})", R"({"type":["string","integer"],"maxLength":10})"}) {
    Prompt prompt;
    prompt.rules.json_schema = schema;
    EXPECT_EQ(take(prompt, std::string(19, '9')), (Taken{19, true})) << schema;
    EXPECT_EQ(take(prompt, std::string(20, '9')).bytes, 19U) << schema;
  }
}

TEST_F(TokenGrammarTest, DaysAreThoseOfTheCalendar) {
  Prompt prompt;
  prompt.rules.json_schema = R"({"type":"string","format":"date"})";
  for (const char* day : {"2024-02-29", "2000-02-29", "1999-12-31", "0004-02-29", "2023-11-30"}) {
    const std::string value = fmt::format("\"{}\"", day);
    EXPECT_EQ(take(prompt, value), (Taken{value.size(), true})) << day;
  }
  // Each is refused before its last digit.
  for (const char* day : {"2023-02-29", "1900-02-29", "2024-02-30", "2024-04-31", "2024-01-32"}) {
    EXPECT_LE(take(prompt, fmt::format("\"{}\"", day)).bytes, 10U) << day;
  }
  EXPECT_EQ(take(prompt, "\"0000").bytes, 4U);
}

TEST_F(TokenGrammarTest, FormatsHaveAnEnd) {
  struct Format {
    const char* name;
    const char* whole;    // Is taken.
    const char* endless;  // Is repeated behind the quotation mark, and not taken for ever.
  };
  for (const Format& format : {Format{"email", "\"o'neill.j+x@mail.example.org\"", "a"},
                               {"hostname", "\"a.b-c.example\"", "a"},
                               {"time", "\"23:59:59.5+02:00\"", "1"},
                               {"date-time", "\"2024-02-29T00:00:00Z\"", "1"},
                               {"duration", "\"P3Y6M4DT12H30M5S\"", "P1"},
                               {"ipv4", "\"127.0.0.1\"", "1"}}) {
    Prompt prompt;
    prompt.rules.json_schema = fmt::format(R"({{"type":"string","format":"{}"}})", format.name);
    EXPECT_EQ(take(prompt, format.whole), (Taken{std::string(format.whole).size(), true}))
        << format.name;
    std::string endless = "\"";
    while (endless.size() < 1000) endless += format.endless;
    EXPECT_LT(take(prompt, endless).bytes, 300U) << format.name;
  }
}

TEST_F(TokenGrammarTest, AnOptionalGroupIsThereAsAWholeOrNotAtAll) {
  struct Case {
    const char* pattern;
    const char* whole;   // Is taken.
    const char* broken;  // Is not: the end of the group without its beginning.
  };
  for (const Case& one : {Case{"^x(_[a-z]{1,5})?$", "\"x_aa\"", "\"xaa\""},
                          {"^x(_[a-z]+)?$", "\"x\"", "\"xaa\""},
                          {"^x((_a+))?y$", "\"x_aay\"", "\"xaay\""},
                          {"^x(_a+){0,3}$", "\"x_aa_a\"", "\"xa\""},
                          {"^x[)?]?(_a+)?$", "\"x?_a\"", "\"x?a\""},
                          {R"(^x\\)?(_a+)?$)", "\"x)_a\"", "\"x)a\""}}) {
    Prompt prompt;
    prompt.rules.json_schema = fmt::format(R"({{"type":"string","pattern":"{}"}})", one.pattern);
    const std::string_view whole = one.whole;
    EXPECT_EQ(take(prompt, whole), (Taken{whole.size(), true})) << one.pattern;
    EXPECT_LT(take(prompt, one.broken).bytes, std::string_view(one.broken).size()) << one.pattern;
  }
  Prompt prompt;
  prompt.rules.json_schema =
      R"({"type":"object","patternProperties":{"^x(_a+)?$":{"type":"null"}},)"
      R"("additionalProperties":false})";
  EXPECT_EQ(take(prompt, "{\"x_a\"").bytes, 6U);
  EXPECT_LT(take(prompt, "{\"xa\"").bytes, 5U);
  prompt.rules.json_schema = R"({"type":"string","format":"time"})";
  EXPECT_LE(take(prompt, "\"12:00:000Z\"").bytes, 9U);
}

TEST(SchemaFormatsTest, WhatIsNoFormatOfAStringStaysAsItIs) {
  for (const char* schema :
       {R"({"type":"object","properties":{"format":{"type":"string"}}})",
        R"({"const":{"type":"string","format":"date"}})", R"({"type":"string","format":"color"})",
        R"({"type":"integer","format":"date"})",
        R"({"type":"string","format":"date","pattern":"^2"})", R"({"format": no JSON)"}) {
    EXPECT_EQ(with_bounded_formats(schema), schema);
  }
}

TEST(SchemaFormatsTest, FormatsAreFoundWhereverASchemaStands) {
  const std::string dated = R"({"type":["string","null"],"format":"date"})";
  for (const std::string& schema :
       {R"({"properties":{"enum":)" + dated + "}}", R"({"$defs":{"day":)" + dated + "}}",
        R"({"items":)" + dated + "}", R"({"anyOf":[{"type":"null"},)" + dated + "]}"}) {
    const std::string bounded = with_bounded_formats(schema);
    EXPECT_EQ(bounded.find("\"format\""), std::string::npos) << bounded;
    EXPECT_NE(bounded.find("\"pattern\":\"^"), std::string::npos) << bounded;
  }
}

TEST_F(TokenGrammarTest, NamesWithAnyCharactersAreTakenAsTheyAre) {
  for (const std::string name : {"gr\xc3\xb6\xc3\x9f"
                                 "e",
                                 "\xe5\x90\x8d\xe5\x89\x8d",
                                 "\xc3\xbf"
                                 "0",
                                 "a/b"}) {
    Prompt prompt;
    prompt.rules.json_schema = R"({"type":"object","properties":{")" + name +
                               R"(":{"type":"boolean"}},"required":[")" + name + "\"]}";
    const std::string value = "{\"" + name + "\":true}";
    EXPECT_EQ(take(prompt, value), (Taken{value.size(), true})) << name;
  }
}

TEST_F(TokenGrammarTest, WhatCannotBeEnforcedIsAnErrorInWords) {
  Prompt prompt;
  prompt.rules.json_schema = R"({"$ref":"#/nowhere"})";
  const auto grammar =
      compiler_.compile(structural_tag(prompt, plain_spelling(), [](std::string_view schema, int) {
        return R"({"type":"json_schema","json_schema":)" + std::string(schema) + "}";
      }));
  ASSERT_FALSE(grammar.has_value());
  EXPECT_EQ(grammar.error().code, Code::kInvalidArgument);
  EXPECT_FALSE(grammar.error().message.empty());
}

TEST_F(TokenGrammarTest, ACompilationThatIsDoneStandsInNobodysWay) {
  for (int i = 0; i < 500; ++i) {
    Prompt prompt;
    prompt.rules.json_schema = fmt::format(R"({{"const":{}}})", i);
    const auto grammar = compiler_.compile(structural_tag(prompt, plain_spelling(), schema_format));
    ASSERT_TRUE(grammar) << i << ": " << grammar.error().message;
  }
}

/// A compilation that goes on until it is let go.
class Blocked {
 public:
  ~Blocked() { gate_.set_value(); }
  GrammarCompiler::MakeTag tag() {
    return [open = open_]() -> std::string {
      open.wait();
      return {};
    };
  }

 private:
  std::promise<void> gate_;
  std::shared_future<void> open_ = gate_.get_future().share();
};

TEST_F(TokenGrammarTest, WhatWasGivenUpIsKnownByAllOfItsKey) {
  // Texts with the same std::hash in libstdc++.
  const std::string one = "GT;d7FguoV8FW)n!";
  const std::string other = "OL6CtL73gPcnV-w:";
  Prompt prompt;
  prompt.rules.json_schema = R"({"const":1})";
  const std::string tag = structural_tag(prompt, plain_spelling(), schema_format);
  Blocked blocked;
  const auto given_up = compiler_.compile(one, blocked.tag(), Duration());
  ASSERT_FALSE(given_up);
  EXPECT_EQ(given_up.error().code, Code::kDeadlineExceeded);
  const auto again = compiler_.compile(
      one, [tag] { return tag; }, GrammarCompiler::kCompileMax);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::kUnavailable);
  EXPECT_TRUE(compiler_.compile(
      other, [tag] { return tag; }, GrammarCompiler::kCompileMax));
}

TEST_F(TokenGrammarTest, KeysOfWhatWasGivenUpHaveABound) {
  Prompt prompt;
  prompt.rules.json_schema = R"({"const":1})";
  const std::string tag = structural_tag(prompt, plain_spelling(), schema_format);
  for (const std::size_t more : {0U, 1U}) {
    GrammarCompiler compiler(byte_pieces(), {kEnd});
    Blocked blocked;
    const std::string key(GrammarCompiler::kGivenUpBytesMax + more, 'k');
    EXPECT_FALSE(compiler.compile(key, blocked.tag(), Duration()));
    const bool is_known = !compiler.compile(
        key, [tag] { return tag; }, GrammarCompiler::kCompileMax);
    EXPECT_EQ(is_known, more == 0) << more;
  }
}

TEST_F(TokenGrammarTest, ATokenThatIsNotAllowedChangesNothing) {
  TokenMatcher following = matcher(with_tool(ToolChoice::kAny));
  EXPECT_FALSE(following.accept('x'));
  EXPECT_TRUE(following.accept('<'));
  EXPECT_FALSE(following.finished());
}

}  // namespace
}  // namespace pensieve::engine
