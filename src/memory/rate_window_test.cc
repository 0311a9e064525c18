#include "memory/rate_window.h"

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint at(Duration since_start) {
  return TimePoint() + since_start;
}

TEST(RateWindowTest, TwoPointsMakeARateOnceTheyAreFarEnoughApart) {
  RateWindow window(seconds(4));
  EXPECT_EQ(window.per_second(), std::nullopt);
  window.add(100, at(seconds(0)));
  EXPECT_EQ(window.per_second(), std::nullopt);
  window.add(200, at(milliseconds(249)));
  EXPECT_EQ(window.per_second(), std::nullopt) << "a sixteenth of the span is 250 ms";
  window.add(200, at(milliseconds(250)));
  EXPECT_DOUBLE_EQ(window.per_second().value(), 400);
}

TEST(RateWindowTest, WhatIsOlderThanTheSpanIsForgotten) {
  RateWindow window(seconds(2));
  std::uint64_t count = 0;
  for (int tick = 0; tick <= 40; ++tick) {
    if (tick < 20) count += 1000;
    window.add(count, at(milliseconds(250) * tick));
  }
  EXPECT_DOUBLE_EQ(window.per_second().value(), 0);
}

TEST(RateWindowTest, ManyPointsInAShortTimeDoNotPushTheOldOnesOut) {
  RateWindow window(seconds(2));
  for (int tick = 0; tick <= 2000; ++tick) {
    window.add(static_cast<std::uint64_t>(tick), at(milliseconds(1) * tick));
  }
  EXPECT_NEAR(window.per_second().value(), 1000, 1);
}

TEST(RateWindowTest, ACounterThatFallsStartsAnew) {
  RateWindow window(seconds(2));
  window.add(5000, at(seconds(0)));
  window.add(10, at(seconds(1)));
  EXPECT_EQ(window.per_second(), std::nullopt);
  window.add(20, at(seconds(2)));
  EXPECT_DOUBLE_EQ(window.per_second().value(), 10);
}

TEST(RateWindowTest, AGapInTheReadingsIsAveragedOver) {
  RateWindow window(seconds(2));
  window.add(0, at(seconds(0)));
  window.add(600, at(seconds(60)));
  EXPECT_DOUBLE_EQ(window.per_second().value(), 10);
}

}  // namespace
}  // namespace pensieve::memory
