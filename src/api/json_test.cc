#include "api/json.h"

#include <limits>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace pensieve::api {
namespace {

using namespace std::literals;

std::string refusal_of(std::string_view body) {
  const auto parsed = parse_json(body);
  if (parsed) return "accepted";
  EXPECT_EQ(parsed.error().status, 400U);
  EXPECT_EQ(parsed.error().type, "invalid_request_error");
  return parsed.error().message;
}

std::string nested(std::size_t levels) {
  return std::string(levels, '[') + std::string(levels, ']');
}

TEST(ParseJsonTest, AcceptsOneValueWithSpaceAroundIt) {
  const auto parsed = parse_json(" \r\n\t{\"a\":1} \n");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->at("a"), 1);
}

TEST(ParseJsonTest, SaysWhatIsWrongAndWhere) {
  EXPECT_EQ(refusal_of("{\n  \"a\": nul}"),
            "The request body is not valid JSON: syntax error: line 2 column 8 (byte 9)");
  EXPECT_EQ(refusal_of(""),
            "The request body is not valid JSON: it ends too early: line 1 column 1 (byte 0)");
  EXPECT_EQ(refusal_of("{\"a\":"),
            "The request body is not valid JSON: it ends too early: line 1 column 6 (byte 5)");
  EXPECT_EQ(refusal_of("{} {}"),
            "The request body is not valid JSON: extra data: line 1 column 4 (byte 3)");
}

TEST(ParseJsonTest, RefusesWhatIsNotStrictJson) {
  for (const std::string& body :
       {"\xEF\xBB\xBF{}"s, "{'a':1}"s, "[1,]"s, "[NaN]"s, "[01]"s, "// x\n{}"s, "\"a\nb\""s,
        "{}\0"s, "\"\0\""s, "[+1]"s, "{\"a\"}"s, "{\"a\":1"s}) {
    EXPECT_NE(refusal_of(body), "accepted") << body;
  }
}

TEST(ParseJsonTest, RefusesInvalidUtf8AndLoneSurrogates) {
  for (const std::string_view text :
       {"\x80", "\xC0\xAF", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", R"(\ud800)",
        R"(\udc00)", R"(\ud800x)", R"(\ud800\u0041)"}) {
    EXPECT_NE(refusal_of("\"" + std::string(text) + "\""), "accepted") << text;
  }
  EXPECT_EQ(parse_json(R"("\ud83d\ude00")"), boost::json::value("\xF0\x9F\x98\x80"));
}

TEST(ParseJsonTest, AcceptsTheDeepestNestingAndRefusesOneMore) {
  EXPECT_TRUE(parse_json(nested(kJsonDepthMax)));
  EXPECT_NE(refusal_of(nested(kJsonDepthMax + 1)).find("nested deeper than 64 levels"),
            std::string::npos);
  EXPECT_NE(refusal_of(std::string(1'000'000, '[')).find("nested deeper"), std::string::npos);
}

TEST(ParseJsonTest, TakesTheLastOfDuplicateKeys) {
  EXPECT_EQ(parse_json(R"({"a":1,"a":2})")->at("a"), 2);
}

TEST(ParseJsonTest, AcceptsEveryNumberThatIsJson) {
  for (const std::string_view number : {"1e400", "1e2147483648", "1E+99999999999",
                                        "9.5e0099999999999", "1e999999999999999999999999999999"}) {
    EXPECT_EQ(parse_json(number), boost::json::value(std::numeric_limits<double>::infinity()))
        << number;
    EXPECT_EQ(
        parse_json("[-" + std::string(number) + ",\"1e99999999999\\\"e1\",true]"),
        (boost::json::array{-std::numeric_limits<double>::infinity(), "1e99999999999\"e1", true}));
  }
  EXPECT_EQ(parse_json("1e-99999999999"), boost::json::value(0.0));
  EXPECT_EQ(parse_json("[1e99999999999,2e00000000000001]")->at(1), boost::json::value(20.0));
  EXPECT_EQ(refusal_of("0e99999999999"), "accepted");
  EXPECT_EQ(refusal_of("[1e99999999999,1e]").substr(0, 36), "The request body is not valid JSON: ");
}

TEST(ParseJsonTest, RefusesManySmallValuesBeforeTheyTakeTheMemory) {
  std::string body = "[";
  while (body.size() < 2'000'000) body += "[],";
  body += "[]]";
  const auto parsed = parse_json(body);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().status, 413U);
  EXPECT_EQ(parsed.error().type, "request_too_large");
}

TEST(ParseJsonTest, AcceptsOneLargeStringWithEscapes) {
  // Just past a power of two, where a doubling buffer is largest for its content.
  const std::string body = "\"\\n" + std::string((std::size_t{1} << 22) + 1, 'x') + "\"";
  const auto parsed = parse_json(body);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->get_string().size(), body.size() - 3);
}

TEST(AppendJsonTest, EscapesOnlyWhatMustBe) {
  std::string out;
  append_json(out,
              "q\" b\\ n\n r\r t\t \x01 \x1F \x7F / <\xC3\xA9> \xF0\x9F\x98\x80 \xE2\x80\xA8"sv);
  EXPECT_EQ(out,
            "\"q\\\" b\\\\ n\\n r\\r t\\t \\u0001 \\u001f \x7F / <\xC3\xA9> \xF0\x9F\x98\x80 "
            "\xE2\x80\xA8\"");
}

TEST(AppendJsonTest, WritesWhatAParserReadsBack) {
  std::string text;
  for (char c = 0; c < 127; ++c) text += c;
  text += "\xC2\x80 \xE2\x80\xA8 \xF4\x8F\xBF\xBF";
  std::string out;
  append_json(out, text);
  EXPECT_EQ(parse_json(out), boost::json::value(text));
}

TEST(IsUtf8Test, TakesWholeCharactersOnly) {
  for (const char* good : {"", "a\x7f", "\xc3\xbc", "a\xe2\x82\xac", "\xf0\x9f\x99\x82z"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc3", "a\xe2\x82", "\xc0\x80", "\xed\xa0\x80", "\xff"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(AppendJsonTest, ReplacesWhatIsNoUtf8AndKeepsAllThatIs) {
  for (const std::string_view good :
       {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    std::string out;
    append_json(out, good);
    EXPECT_EQ(out, "\"" + std::string(good) + "\"");
  }
  for (const std::string_view bad :
       {"\x80", "\xBF", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xC3", "\xE2\x28\xA1",
        "\xF0\x9F\x98", "\xF0\x9F\x98x"}) {
    std::string out;
    append_json(out, "a" + std::string(bad) + "b");
    const auto parsed = parse_json(out);
    ASSERT_TRUE(parsed) << out;
    EXPECT_TRUE(out.starts_with("\"a\xEF\xBF\xBD")) << out;
    EXPECT_TRUE(out.ends_with("b\"")) << out;
  }
}

TEST(RefusalTest, PutsThePathTogetherFromTheInsideOut) {
  EXPECT_EQ(to_error(within("messages", within(3, Refusal{"role", "bad"}))).message,
            "messages.3.role: bad");
  EXPECT_EQ(to_error(within("messages", within(3, Refusal{"", "bad"}))).message, "messages.3: bad");
  EXPECT_EQ(to_error(Refusal{"", "bad"}).message, "bad");
}

}  // namespace
}  // namespace pensieve::api
