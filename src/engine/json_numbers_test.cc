#include "engine/json_numbers.h"

#include <string>

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

constexpr const char* kGreatest = "1.7976931348623157e308";

TEST(JsonNumbersTest, WhatNoDoubleHoldsBecomesTheGreatest) {
  const std::string digits(309, '9');
  for (const std::string& number :
       {std::string("1e400"), std::string("1E+99999999999999999999"),
        std::string("1.7976931348623159e308"), digits, digits + ".5", "1" + digits + "e-1"}) {
    EXPECT_EQ(with_finite_numbers(number), kGreatest) << number;
    EXPECT_EQ(with_finite_numbers("{\"a\":[-" + number + ",1]}"),
              std::string("{\"a\":[-") + kGreatest + ",1]}");
  }
}

TEST(JsonNumbersTest, AllElseStaysAsItIs) {
  for (const std::string& json :
       {std::string(kGreatest), std::string(308, '9'), std::string("1e-400"), std::string("0e999"),
        std::string("[1.0,-0,1e5,true,false,null]"), std::string(R"({"1e400":"-1e400"})"),
        std::string(R"("\"1e400\\\"")"), std::string(R"("open 1e400)"), std::string(R"("\)"),
        std::string()}) {
    EXPECT_EQ(with_finite_numbers(json), json);
  }
}

}  // namespace
}  // namespace pensieve::engine
