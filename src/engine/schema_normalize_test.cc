#include "engine/schema_normalize.h"

#include <string>

#include <gtest/gtest.h>

#include "engine/schema_nesting.h"
#include "engine/schema_simpler.h"
#include "engine/structural_tag.h"
#include "engine/testing/byte_vocabulary.h"
#include "engine/token_grammar.h"

namespace pensieve::engine {
namespace {

class SchemaNormalizeTest : public testing::Test {
 protected:
  NormalizedSchema normalized(const std::string& schema, SchemaPlace place = SchemaPlace::kAnswer) {
    return normalized_schema(schema, place, can_follow_pattern);
  }

  /// Whether `value` may be the whole answer where `schema` is asked for.
  bool accepts(const std::string& schema, const std::string& value,
               SchemaPlace place = SchemaPlace::kAnswer) {
    return takes(normalized(schema, place).schema, value);
  }
  bool takes(const std::string& written, const std::string& value) {
    Prompt prompt;
    prompt.rules.json_schema = written;
    const auto grammar = compiler_.compile(structural_tag(prompt, plain_spelling(), schema_format));
    EXPECT_TRUE(grammar) << grammar.error().message << " in " << written;
    if (!grammar) return false;
    TokenMatcher matcher(*grammar);
    for (const char c : value) {
      if (!matcher.accept(static_cast<unsigned char>(c))) return false;
    }
    return matcher.accept(kEnd);
  }
  std::string notes(const std::string& schema, SchemaPlace place = SchemaPlace::kAnswer) {
    std::string all;
    for (const std::string& note : normalized(schema, place).not_enforced) all += note + "; ";
    return all;
  }

  GrammarCompiler compiler_{byte_pieces(), {kEnd}};
};

const std::string kEither =
    R"("type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}})";

TEST_F(SchemaNormalizeTest, AnyOfKeepsWhatStandsBesideIt) {
  const std::string schema = "{" + kEither + R"(,"anyOf":[{"required":["a"]},{"required":["b"]}]})";
  EXPECT_TRUE(accepts(schema, R"({"a":1})"));
  EXPECT_TRUE(accepts(schema, R"({"b":1})"));
  EXPECT_TRUE(accepts(schema, R"({"a":1,"b":2})"));
  EXPECT_FALSE(accepts(schema, "{}"));
  EXPECT_FALSE(accepts(schema, R"({"a":"x"})"));
  EXPECT_FALSE(accepts(schema, R"({"type":"string"})"));
  EXPECT_EQ(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, OneOfAcceptsWhatOneBranchAloneAccepts) {
  const std::string schema = "{" + kEither + R"(,"oneOf":[{"required":["a"]},{"required":["b"]}]})";
  EXPECT_TRUE(accepts(schema, R"({"a":1})"));
  EXPECT_TRUE(accepts(schema, R"({"b":1})"));
  EXPECT_FALSE(accepts(schema, R"({"a":1,"b":2})"));
  EXPECT_FALSE(accepts(schema, "{}"));
  EXPECT_EQ(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, OneOfWhoseBranchesCannotBeToldApartIsNoted) {
  const std::string schema =
      R"({"oneOf":[{"type":"integer","minimum":1},{"type":"integer","maximum":9}]})";
  EXPECT_TRUE(accepts(schema, "5"));
  EXPECT_NE(notes(schema).find("oneOf"), std::string::npos);
}

TEST_F(SchemaNormalizeTest, ABranchIsSetApartFromAllThatAnotherRefersTo) {
  const std::string either =
      R"({"anyOf":[{"type":"object","required":["b"]},{"type":"object","required":["c"]}]})";
  const std::string one =
      R"({"type":"object","properties":{"a":{},"b":{},"c":{}},"required":["a"]})";
  const std::string schema =
      R"({"oneOf":[)" + one + R"(,{"$ref":"#/$defs/either"}],"$defs":{"either":)" + either + "}}";
  EXPECT_TRUE(accepts(schema, R"({"a":1})"));
  EXPECT_TRUE(accepts(schema, R"({"b":1})"));
  EXPECT_TRUE(accepts(schema, R"({"c":1})"));
  EXPECT_FALSE(accepts(schema, R"({"a":1,"b":2})"));
  EXPECT_FALSE(accepts(schema, R"({"a":1,"c":2})"));
  EXPECT_FALSE(accepts(schema, R"({"a":1,"b":2,"c":3})"));
  EXPECT_EQ(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, WhatCannotBeSetApartFromAllThatAnotherRefersToIsNoted) {
  const std::string schema =
      R"({"oneOf":[{"enum":["x","y","z"]},{"$ref":"#/$defs/some"}],"$defs":{"some":)"
      R"({"anyOf":[{"const":"x"},{"enum":["y","z"]}]}}})";
  EXPECT_NE(notes(schema).find("oneOf"), std::string::npos);
}

TEST_F(SchemaNormalizeTest, BranchesThatAreAlikeAreNotToldApart) {
  const std::string same = R"("oneOf":[{"required":["c"]},{"required":["c"]}])";
  EXPECT_NE(notes("{" + kEither + "," + same + "}").find("oneOf"), std::string::npos);
  const std::string of_texts =
      R"({"type":"string","oneOf":[{"required":["b"]},{"dependentRequired":{"b":["a"]}}]})";
  EXPECT_NE(notes(of_texts).find("oneOf"), std::string::npos);
}

TEST_F(SchemaNormalizeTest, BranchesBringTheirOwnProperties) {
  const std::string schema =
      R"({"type":"object","properties":{"kind":{"enum":["x","y"]}},"required":["kind"],"oneOf":[)"
      R"({"properties":{"kind":{"const":"x"},"x":{"type":"integer"}},"required":["x"]},)"
      R"({"properties":{"kind":{"const":"y"},"y":{"type":"boolean"}},"required":["y"]}]})";
  EXPECT_TRUE(accepts(schema, R"({"kind":"x","x":1})"));
  EXPECT_TRUE(accepts(schema, R"({"kind":"y","y":true})"));
  EXPECT_FALSE(accepts(schema, R"({"kind":"y","x":1})"));
  EXPECT_EQ(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, AllOfIsOneSchema) {
  const std::string schema =
      R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer","minimum":1}},)"
      R"("required":["a"]},{"$ref":"#/$defs/b"}],"$defs":{"b":{"type":"object","properties":)"
      R"({"a":{"maximum":5},"b":{"type":"boolean"}},"required":["b"]}}})";
  EXPECT_TRUE(accepts(schema, R"({"a":5,"b":true})"));
  EXPECT_FALSE(accepts(schema, R"({"a":6,"b":true})"));
  EXPECT_FALSE(accepts(schema, R"({"a":0,"b":true})"));
  EXPECT_FALSE(accepts(schema, R"({"a":5})"));
  EXPECT_EQ(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, AllOfHoldsForEachPlaceOfAList) {
  const std::string schema =
      R"({"type":"array","items":{"type":"integer","maximum":5},"maxItems":2,)"
      R"("allOf":[{"prefixItems":[{"type":"number","minimum":3}],"items":{"minimum":1}}]})";
  EXPECT_TRUE(accepts(schema, "[4,1]"));
  EXPECT_FALSE(accepts(schema, "[2,1]"));
  EXPECT_FALSE(accepts(schema, "[6,1]"));
  EXPECT_FALSE(accepts(schema, "[4,0]"));
}

TEST_F(SchemaNormalizeTest, AToolsInputIsAnObject) {
  constexpr auto kTool = SchemaPlace::kToolInput;
  EXPECT_FALSE(accepts("{}", "5", kTool));
  EXPECT_TRUE(accepts("{}", R"({"x":[1]})", kTool));
  const std::string no_object = R"({"anyOf":[{"type":"string"},{"type":"integer"}]})";
  EXPECT_TRUE(accepts(no_object, R"({"x":1})", kTool));
  EXPECT_FALSE(accepts(no_object, "5", kTool));
  EXPECT_NE(notes(no_object, kTool), "");
  const std::string both = R"({"anyOf":[{"type":"string"},{"required":["a"]}]})";
  EXPECT_TRUE(accepts(both, R"({"a":1})", kTool));
  EXPECT_FALSE(accepts(both, R"("a")", kTool));
}

TEST_F(SchemaNormalizeTest, WhatCannotBeEnforcedLeavesTheRestAsItIs) {
  for (const char* bad :
       {R"({"type":"string","pattern":"\\bfoo\\b"})", R"({"$ref":"#/$defs/Nope"})",
        R"({"type":"string","pattern":"^(?!x)[a-z]+$"})", R"({"type":"string","pattern":"^ü+$"})",
        R"({"type":"colour"})", R"({"type":"string","not":{"const":"x"}})",
        R"({"type":"string","maxLength":65536})", R"({"type":"string","pattern":"^.{0,200}$"})"}) {
    const std::string schema = R"({"type":"object","properties":{"bad":)" + std::string(bad) +
                               R"(,"n":{"type":"integer","minimum":1,"maximum":9}},)"
                               R"("required":["bad","n"]})";
    EXPECT_TRUE(accepts(schema, R"({"bad":"x","n":5})")) << bad;
    EXPECT_FALSE(accepts(schema, R"({"bad":"x","n":10})")) << bad;
    EXPECT_FALSE(accepts(schema, R"({"bad":"x"})")) << bad;
    EXPECT_NE(notes(schema).find("at /properties/bad"), std::string::npos) << bad << notes(schema);
  }
}

TEST_F(SchemaNormalizeTest, AFalsePropertyIsAbsent) {
  const std::string schema =
      R"({"type":"object","properties":{"r":false,"n":{"type":"integer"}},"required":["n"],)"
      R"("additionalProperties":true})";
  EXPECT_TRUE(accepts(schema, R"({"n":1})"));
  EXPECT_FALSE(accepts(schema, R"({"n":1,"r":1})"));
}

TEST_F(SchemaNormalizeTest, OlderDraftsAreUnderstood) {
  const std::string tuple = R"({"type":"array","items":[{"type":"integer"},{"type":"boolean"}],)"
                            R"("minItems":2})";
  EXPECT_TRUE(accepts(tuple, "[1,true]"));
  EXPECT_FALSE(accepts(tuple, "[true,1]"));
  const std::string above = R"({"type":"integer","minimum":1,"exclusiveMinimum":true,"maximum":3})";
  EXPECT_TRUE(accepts(above, "2"));
  EXPECT_FALSE(accepts(above, "1"));
  const std::string needs = "{" + kEither + R"(,"required":["a"],"dependencies":{"a":["b"]}})";
  EXPECT_TRUE(accepts(needs, R"({"a":1,"b":2})"));
  EXPECT_FALSE(accepts(needs, R"({"a":1})"));
  EXPECT_TRUE(accepts(R"({"type":"string","maxLength":2.0})", R"("ab")"));
  EXPECT_FALSE(accepts(R"({"type":"string","maxLength":2.0})", R"("abc")"));
}

TEST_F(SchemaNormalizeTest, ARequiredNameWithoutAPropertyIsAskedFor) {
  const std::string schema =
      R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a","zz"]})";
  EXPECT_FALSE(accepts(schema, R"({"a":1})"));
  EXPECT_TRUE(accepts(schema, R"({"a":1,"zz":[]})"));
}

TEST_F(SchemaNormalizeTest, DependentRequiredIsKept) {
  const std::string schema = "{" + kEither + R"(,"dependentRequired":{"a":["b"]}})";
  EXPECT_TRUE(accepts(schema, "{}"));
  EXPECT_TRUE(accepts(schema, R"({"b":2})"));
  EXPECT_TRUE(accepts(schema, R"({"a":1,"b":2})"));
  EXPECT_FALSE(accepts(schema, R"({"a":1})"));
}

TEST_F(SchemaNormalizeTest, WhatIsContainedComesFirst) {
  const std::string schema =
      R"({"type":"array","items":{"enum":["a","b"]},"contains":{"const":"b"},"maxItems":2})";
  EXPECT_TRUE(accepts(schema, R"(["b","a"])"));
  EXPECT_FALSE(accepts(schema, R"(["a","a"])"));
}

TEST_F(SchemaNormalizeTest, ValuesOfOtherTypesAreNoChoices) {
  const std::string schema = R"({"type":"string","enum":["a",1,"abcd"],"maxLength":2})";
  EXPECT_TRUE(accepts(schema, R"("a")"));
  EXPECT_FALSE(accepts(schema, "1"));
  EXPECT_FALSE(accepts(schema, R"("abcd")"));
}

TEST_F(SchemaNormalizeTest, NotTakesAwayValuesAndNames) {
  const std::string choice = R"({"enum":["a","b"],"not":{"const":"a"}})";
  EXPECT_TRUE(accepts(choice, R"("b")"));
  EXPECT_FALSE(accepts(choice, R"("a")"));
  EXPECT_FALSE(accepts(R"({"allOf":[{"properties":{"a":true},"not":{"required":["b"]}},)"
                       R"({"type":"array"}]})",
                       "[]"));
  const std::string absent = "{" + kEither + R"(,"not":{"required":["b"]}})";
  EXPECT_TRUE(accepts(absent, R"({"a":1})"));
  EXPECT_FALSE(accepts(absent, R"({"a":1,"b":2})"));
  EXPECT_EQ(notes(choice) + notes(absent), "");
}

TEST_F(SchemaNormalizeTest, IfIsTwoBranches) {
  const std::string schema =
      R"({"type":"object","properties":{"kind":{"enum":["x","y"]},"n":{"type":"integer"},)"
      R"("on":{"type":"boolean"}},"required":["kind"],"if":{"properties":{"kind":{"const":"x"}}},)"
      R"("then":{"required":["n"]},"else":{"required":["on"]}})";
  EXPECT_TRUE(accepts(schema, R"({"kind":"x","n":1})"));
  EXPECT_TRUE(accepts(schema, R"({"kind":"y","on":true})"));
  EXPECT_FALSE(accepts(schema, R"({"kind":"x","on":true})"));
  EXPECT_FALSE(accepts(schema, R"({"kind":"y","n":1})"));
  EXPECT_EQ(notes(schema), "");
  const std::string flag =
      R"({"type":"object","properties":{"on":{"type":"boolean"},"n":{"type":"integer"}},)"
      R"("if":{"properties":{"on":{"const":true}},"required":["on"]},"then":{"required":["n"]}})";
  EXPECT_TRUE(accepts(flag, R"({"on":true,"n":1})"));
  EXPECT_TRUE(accepts(flag, "{}"));
  EXPECT_FALSE(accepts(flag, R"({"on":true})"));
}

TEST_F(SchemaNormalizeTest, WhatIsNotEnforcedIsNoted) {
  EXPECT_NE(notes(R"({"type":"integer","not":{"const":1}})"), "");
  EXPECT_NE(notes(R"({"type":"string","if":{"minLength":3},"then":{"pattern":"^a"}})"), "");
  EXPECT_NE(notes(R"({"type":"array","items":{"enum":[1,2]},"uniqueItems":true})"), "");
  EXPECT_NE(notes(R"({"type":"number","multipleOf":0.5})"), "");
  EXPECT_NE(notes(R"({"type":"string","pattern":"^a+$","maxLength":3})"), "");
  EXPECT_NE(notes("{" + kEither +
                  R"(,"additionalProperties":false,"required":["a"],)"
                  R"("dependentRequired":{"a":["c"]}})"),
            "");
}

TEST_F(SchemaNormalizeTest, ReferencesMayComeBackToThemselves) {
  const std::string tree =
      R"({"type":"object","properties":{"v":{"type":"integer"},"next":{"$ref":"#"}},)"
      R"("required":["v"]})";
  EXPECT_TRUE(accepts(tree, R"({"v":1,"next":{"v":2,"next":{"v":3}}})"));
  EXPECT_FALSE(accepts(tree, R"({"v":1,"next":{"v":true}})"));
  const std::string beside =
      R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},)"
      R"("c":{"$ref":"#/$defs/n","minProperties":1}},"required":["v"]}}})";
  EXPECT_TRUE(accepts(beside, R"({"v":1,"c":{"v":2}})"));
  EXPECT_FALSE(accepts(beside, R"({"v":1,"c":{}})"));
  for (const char* circle :
       {R"({"$ref":"#"})", R"({"allOf":[{"$ref":"#"}]})",
        R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}})"}) {
    EXPECT_TRUE(accepts(circle, "5")) << circle;
  }
}

TEST_F(SchemaNormalizeTest, WhatIsMergedWithItselfHasAnEnd) {
  const std::string schema =
      R"({"$ref":"#/$defs/q","$defs":{"q":{"type":"object","allOf":[{"$ref":"#/$defs/q","anyOf":)"
      R"([{"required":["a"]},{"required":["b"]},{"minProperties":1}]},{"$ref":"#/$defs/q","anyOf":)"
      R"([{"required":["c"]},{"required":["d"]}]}],"required":["e"]}}})";
  EXPECT_FALSE(accepts(schema, "{}"));
  EXPECT_NE(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, ABoundThatNoDoubleHoldsLeavesTheRestAsItIs) {
  for (const char* type : {"number", "integer"}) {
    const std::string schema = R"({"type":"object","properties":{"n":{"type":")" +
                               std::string(type) +
                               R"(","minimum":2,"maximum":1e400}},)"
                               R"("required":["n"]})";
    EXPECT_TRUE(accepts(schema, R"({"n":20})")) << type;
    EXPECT_FALSE(accepts(schema, R"({"n":1})")) << type;
    EXPECT_FALSE(accepts(schema, "{}")) << type;
  }
}

TEST_F(SchemaNormalizeTest, NamesInPointersAreUnescaped) {
  const std::string schema = R"({"$ref":"#/$defs/a~1b%20c","$defs":{"a/b c":{"type":"boolean"}}})";
  EXPECT_TRUE(accepts(schema, "true"));
  EXPECT_FALSE(accepts(schema, "5"));
}

TEST_F(SchemaNormalizeTest, ManyCombinationsHaveABound) {
  std::string parts;
  for (int i = 0; i < 30; ++i) {
    const std::string name = "p" + std::to_string(i);
    parts += (i > 0 ? "," : "") +
             (R"({"anyOf":[{"required":[")" + name + R"("]},{"required":["q)" + name + R"("]}]})");
  }
  EXPECT_NE(notes(R"({"type":"object","allOf":[)" + parts + "]}"), "");
}

TEST_F(SchemaNormalizeTest, StringsWithALengthHaveNoControlCharacters) {
  EXPECT_FALSE(accepts(R"({"type":"string","maxLength":9})", "\"\t\""));
  EXPECT_TRUE(accepts(R"({"type":"string","maxLength":9})", "\"\xc3\xbc \""));
}

TEST_F(SchemaNormalizeTest, PatternsNeverAcceptWhatIsNoJson) {
  for (const char* pattern : {"^.*$", "^[^/]+$", "^[^/\xc3\xa9]+$", "^.+\xc3\xa9?$"}) {
    const std::string schema = R"({"type":"string","pattern":")" + std::string(pattern) + "\"}";
    EXPECT_FALSE(accepts(schema, R"("x"y")")) << pattern;
    EXPECT_FALSE(accepts(schema, "\"x\ny\"")) << pattern;
    EXPECT_TRUE(accepts(schema, R"("xy")")) << pattern;
  }
}

TEST_F(SchemaNormalizeTest, ASimplerSchemaKeepsNamesAndKinds) {
  const std::string simpler = simpler_schema(
      R"({"type":"object","properties":{"pattern":{"type":"string","pattern":"^x$"},)"
      R"("n":{"type":"integer","maximum":9}},"required":["pattern"]})");
  EXPECT_TRUE(takes(simpler, R"({"pattern":"other"})"));
  EXPECT_TRUE(takes(simpler, R"({"pattern":"other","n":9})"));
  EXPECT_FALSE(takes(simpler, R"({"pattern":"other","n":10})"));
  EXPECT_FALSE(takes(simpler, "{}"));
}

/// `count` times `open`, then `innermost`, then as often `close`.
std::string nested(int count, const std::string& open, const std::string& innermost,
                   const std::string& close) {
  std::string text;
  for (int i = 0; i < count; ++i) text += open;
  text += innermost;
  for (int i = 0; i < count; ++i) text += close;
  return text;
}

TEST_F(SchemaNormalizeTest, WhatContainsItselfHasAnEnd) {
  const std::string item =
      R"({"$defs":{"item":{"type":"object","properties":{"id":{"type":"integer"},"part":)"
      R"({"$ref":"#/$defs/item"}},"required":["id"]}},"$ref":"#/$defs/item"})";
  const auto parts = [](int count) {
    return nested(count, R"({"id":1,"part":)", R"({"id":1})", "}");
  };
  EXPECT_TRUE(accepts(item, parts(0)));
  EXPECT_TRUE(accepts(item, parts(kNestingMax - 1)));
  EXPECT_FALSE(accepts(item, parts(kNestingMax)));
  const std::string chain =
      R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},)"
      R"("required":["next"]})";
  const auto links = [](int count) { return nested(count, R"({"next":)", "null", "}"); };
  EXPECT_TRUE(accepts(chain, links(1)));
  EXPECT_TRUE(accepts(chain, links(kNestingMax)));
  EXPECT_FALSE(accepts(chain, links(kNestingMax + 2)));
  const std::string lists = R"({"type":"array","items":{"$ref":"#"}})";
  EXPECT_TRUE(accepts(lists, "[[],[[]]]"));
  EXPECT_TRUE(accepts(lists, nested(kNestingMax, "[", "", "]")));
  EXPECT_FALSE(accepts(lists, nested(kNestingMax + 2, "[", "", "]")));
  const std::string maps = R"({"type":"object","additionalProperties":{"$ref":"#"}})";
  EXPECT_TRUE(accepts(maps, R"({"a":{"b":{}},"c":{}})"));
  EXPECT_FALSE(accepts(maps, nested(kNestingMax + 2, R"({"a":)", "{}", "}")));
  for (const std::string& schema : {item, chain, lists, maps}) EXPECT_EQ(notes(schema), "");
}

TEST_F(SchemaNormalizeTest, WhatIsValidWithoutEndOnlyStaysAsItIs) {
  const std::string endless =
      R"({"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]})";
  EXPECT_EQ(normalized(endless).schema.find("_1"), std::string::npos);
  const std::string plain =
      R"({"$defs":{"a":{"type":"integer"}},"type":"array","items":{"$ref":"#/$defs/a"}})";
  EXPECT_TRUE(accepts(plain, "[1,2]"));
  EXPECT_EQ(normalized(plain).schema.find("_1"), std::string::npos);
}

}  // namespace
}  // namespace pensieve::engine
