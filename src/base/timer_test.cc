#include "base/timer.h"

#include <vector>

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>

#include "base/testing/fake_clock.h"

namespace pensieve {
namespace {

namespace asio = boost::asio;
using std::chrono::hours;
using std::chrono::milliseconds;

TEST(Timer, FollowsTheClockOfItsScopeAndNothingElse) {
  FakeClock clock;
  clock.advance(hours(1));
  const ScopedTimerClock scope(clock);
  asio::io_context io(1);
  Timer first(io);
  Timer second(io);
  std::vector<int> ran;
  first.expires_after(milliseconds(50));
  first.async_wait([&](const auto&) { ran.push_back(1); });
  second.expires_after(milliseconds(20));
  second.async_wait([&](const auto&) { ran.push_back(2); });
  io.poll();
  EXPECT_TRUE(ran.empty());
  clock.advance(milliseconds(19));
  io.poll();
  EXPECT_TRUE(ran.empty());
  clock.advance(milliseconds(1));
  io.poll();
  EXPECT_EQ(ran, (std::vector<int>{2}));
  clock.advance(hours(24));
  io.poll();
  EXPECT_EQ(ran, (std::vector<int>{2, 1}));
}

TEST(Timer, FollowsTheMachineWithoutAScope) {
  {
    FakeClock clock;
    const ScopedTimerClock scope(clock);
    EXPECT_EQ(TimerClock::now(), clock.now());
  }
  const TimePoint before = steady_clock().now();
  const TimePoint now = TimerClock::now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, steady_clock().now());
}

}  // namespace
}  // namespace pensieve
