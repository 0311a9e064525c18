#include "engine/native_schema.h"

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

TEST(NativeSchema, TheOutlineKeepsNamesPlainTypesAndWhatIsRequired) {
  EXPECT_EQ(schema_outline(R"({"type":"object","required":["a","c","z",1],"properties":{)"
                           R"("a":{"type":"string","pattern":"("},"b":true,"c":{"$ref":"#/x"},)"
                           R"("d":{"type":"any"},"e":{"type":["string","null"]},)"
                           R"("f":{"type":"array","items":true}}})"),
            R"({"type":"object","properties":{"a":{"type":"string"},"b":{},"c":{},"d":{},"e":{},)"
            R"("f":{"type":"array","items":{}}},)"
            R"("required":["a","c"]})");
}

TEST(NativeSchema, WhatIsNoObjectBecomesOneOfAnyKind) {
  for (const char* schema : {"true", R"({"$ref":"#"})", R"({"properties":[]})", "{", "{}"}) {
    EXPECT_EQ(schema_outline(schema), R"({"type":"object"})") << schema;
  }
}

}  // namespace
}  // namespace pensieve::engine
