#include "memory/psi.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

constexpr std::string_view kGood =
    "some avg10=12.34 avg60=0.05 avg300=100.00 total=123456\n"
    "full avg10=1.00 avg60=0.00 avg300=0.00 total=789\n";

TEST(ParsePressureTest, ReadsBothLines) {
  const Result<Pressure> pressure = parse_pressure(kGood);
  ASSERT_TRUE(pressure.has_value());
  EXPECT_DOUBLE_EQ(pressure->some.avg10_percent, 12.34);
  EXPECT_DOUBLE_EQ(pressure->some.avg60_percent, 0.05);
  EXPECT_DOUBLE_EQ(pressure->some.avg300_percent, 100.0);
  EXPECT_EQ(pressure->some.total, std::chrono::microseconds(123456));
  EXPECT_DOUBLE_EQ(pressure->full.avg10_percent, 1.0);
  EXPECT_EQ(pressure->full.total, std::chrono::microseconds(789));
}

TEST(ParsePressureTest, AnythingElseIsAnError) {
  const std::string_view full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
  const std::string_view bad_some[] = {
      "",
      "some\n",
      "some avg10=0.00 avg60=0.00 avg300=0.00\n",
      "some avg10=0.00 avg60=0.00 avg300=0.00 total=0",
      "some avg10= avg60=0.00 avg300=0.00 total=0\n",
      "some avg10=nan avg60=0.00 avg300=0.00 total=0\n",
      "some avg10=-1.00 avg60=0.00 avg300=0.00 total=0\n",
      "some avg10=100.01 avg60=0.00 avg300=0.00 total=0\n",
      "some avg10=1.0 avg60=0.00 avg300=0.00 total=0\n",
      "some avg60=0.00 avg10=0.00 avg300=0.00 total=0\n",
      "some avg10=0.00 avg60=0.00 avg300=0.00 total=-1\n",
      "some avg10=0.00 avg60=0.00 avg300=0.00 total=18446744073709551615\n",
  };
  for (const std::string_view some : bad_some) {
    EXPECT_FALSE(parse_pressure(std::string(full) + std::string(some)).has_value()) << some;
  }
  EXPECT_FALSE(parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").has_value())
      << "no full line";
}

}  // namespace
}  // namespace pensieve::memory
