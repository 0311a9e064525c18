#include "api/raw_json.h"

#include <gtest/gtest.h>
#include <boost/json.hpp>

namespace pensieve::api {
namespace {

using Views = std::vector<std::string_view>;

TEST(LoneSurrogateTest, HalfACharacterIsReplacedAndAllElseStays) {
  const auto mended = [](std::string text) {
    replace_lone_surrogates(text);
    return text;
  };
  EXPECT_EQ(mended(R"("a\ud83d")"), R"("a\ufffd")");
  EXPECT_EQ(mended(R"("\uDE00\ud83d\n")"), R"("\ufffd\ufffd\n")");
  EXPECT_EQ(mended(R"("\ud83d\ud83d\ude00")"), R"("\ufffd\ud83d\ude00")");
  for (const std::string text :
       {R"("\ud83d\ude00")", R"("\\ud83d")", R"("\u00e4\\\"")", R"("\u0000")", R"("\ud83)",
        R"("\u)", R"(\)", R"("\ud7ff\ue000")", R"("\u-123")", ""}) {
    EXPECT_EQ(mended(text), text);
  }
}

TEST(RawElementsTest, SplitsAnArrayIntoItsBytes) {
  EXPECT_EQ(raw_elements(R"( [ 1.0 , "a,]\"" ,{"k":[1,2]},[ ], null ] )"),
            (Views{"1.0", R"("a,]\"")", R"({"k":[1,2]})", "[ ]", "null"}));
  EXPECT_EQ(raw_elements("[]"), Views{});
  EXPECT_EQ(raw_elements("[ ]"), Views{});
  EXPECT_EQ(raw_elements("[-1e5]"), Views{"-1e5"});
}

TEST(RawElementsTest, GivesNothingOfAnythingElse) {
  for (const std::string_view text : {"", " ", "{}", "1", "\"[1]\"", "null"}) {
    EXPECT_EQ(raw_elements(text), Views{}) << text;
  }
}

TEST(RawMemberTest, FindsTheBytesOfAMember) {
  constexpr std::string_view kText = R"( { "a" : 1.0, "b":{ "a":2 } , "c" :"}" } )";
  EXPECT_EQ(raw_member(kText, "a"), "1.0");
  EXPECT_EQ(raw_member(kText, "b"), R"({ "a":2 })");
  EXPECT_EQ(raw_member(kText, "c"), R"("}")");
  EXPECT_EQ(raw_member(kText, "d"), "");
}

TEST(RawMemberTest, TakesTheLastOfDuplicatesAsTheParserDoes) {
  EXPECT_EQ(raw_member(R"({"a":1,"a":2,"b":3})", "a"), "2");
}

TEST(RawMemberTest, ReadsEscapedKeys) {
  EXPECT_EQ(raw_member(R"({"\u0061":1})", "a"), "1");
  EXPECT_EQ(raw_member(R"({"\"":1,"\\":2})", "\""), "1");
  EXPECT_EQ(raw_member(R"({"a\"":1})", "a"), "");
}

TEST(RawMemberTest, GivesNothingOfAnythingElse) {
  for (const std::string_view text : {"", "[]", R"(["a",1])", R"("a")", "{}"}) {
    EXPECT_EQ(raw_member(text, "a"), "") << text;
  }
}

TEST(CompactJsonTest, KeepsNumbersAndOrderAndDropsSpace) {
  EXPECT_EQ(compact_json("{ \"b\" : 1.0 ,\n\t\"a\":[ 0.5, 1e20, 100000000000000000000 ] }"),
            R"({"b":1.0,"a":[0.5,1e20,100000000000000000000]})");
}

TEST(CompactJsonTest, WritesOneStringInOneWay) {
  EXPECT_EQ(compact_json(R"({"k\u0061":"\u0041\/ \u00e9"})"),
            compact_json("{\"ka\":\"A/ \xC3\xA9\"}"));
  EXPECT_EQ(compact_json(R"("a  b \n \" \u0001")"), R"("a  b \n \" \u0001")");
}

}  // namespace
}  // namespace pensieve::api
