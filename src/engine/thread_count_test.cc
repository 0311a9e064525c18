// The policy against a simulated machine, and what it reads on a real one.
#include "engine/thread_count.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"
#include "engine/core_times.h"

namespace pensieve::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint32_t kSeeds = 5;

/// Cores, programs that take one each for as long as they get it, and a model being decoded.
class Machine {
 public:
  Machine(std::uint32_t cores, std::uint32_t threads_max, std::uint32_t seed = 1)
      : cores_(cores), policy_(threads_max), random_(seed) {}

  void set_others(std::uint32_t programs) { others_ = programs; }
  /// Short work of others all the time, together as much as a part of one core.
  void set_background(double cores) { background_ = cores; }
  void set_kind(StepKind kind) { kind_ = kind; }
  void hide_readings() { hidden_ = true; }

  /// One step with as many threads as the policy says; returns how many.
  std::uint32_t step() {
    follow(ReadingTime::kBeforeStep);
    const std::uint32_t threads = policy_.threads(kind_);
    std::lognormal_distribution<double> noise(0, 0.3);
    const bool is_shared = threads + others_ > cores_;
    const double alone_ms = 2 + 8.0 / threads;
    spend(alone_ms * noise(random_) * (is_shared ? 12 : 1), threads);
    follow(ReadingTime::kAfterStep);
    return threads;
  }
  /// Steps for `time`; returns the number of threads of the last.
  std::uint32_t run(Duration time) {
    const TimePoint end = now_ + time;
    while (now_ < end) step();
    return policy_.threads(kind_);
  }
  /// Nobody asks for anything.
  void pause(Duration time) { spend(std::chrono::duration<double, std::milli>(time).count(), 0); }
  /// The time until the number of threads is `threads`, at most `limit`.
  Duration time_until(std::uint32_t threads, Duration limit) {
    const TimePoint began = now_;
    while (policy_.threads(kind_) != threads && now_ - began < limit) step();
    return now_ - began;
  }

  TimePoint now() const { return now_; }
  const ThreadCount& policy() const { return policy_; }

 private:
  void follow(ReadingTime time) {
    if (policy_.wants_reading(time, now_)) policy_.observe(time, reading());
  }
  std::optional<CoreTimes> reading() const {
    if (hidden_) return std::nullopt;
    // The kernel tells idle time in hundredths of a second.
    const auto idle = std::chrono::floor<std::chrono::duration<int, std::centi>>(idle_);
    return CoreTimes{now_, idle, own_};
  }
  void spend(double wall_ms, std::uint32_t threads) {
    std::uniform_real_distribution<double> background(0, 2 * background_);
    const double cores = cores_ - background(random_);
    const double wanted = threads * 0.97 + others_;  // The rest of a step is done by one thread.
    const double share = std::min(1.0, cores / std::max(wanted, 1.0));
    const double own = threads * 0.97 * share;
    const double idle = std::max(0.0, cores - own - others_ * share);
    const auto duration = [](double ms) {
      return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(ms));
    };
    now_ += duration(wall_ms);
    own_ += duration(wall_ms * own);
    idle_ += duration(wall_ms * idle);
  }

  std::uint32_t cores_;
  std::uint32_t others_ = 0;
  double background_ = 0;
  bool hidden_ = false;
  StepKind kind_ = StepKind::kDecode;
  TimePoint now_;
  Duration idle_ = seconds(77);
  Duration own_ = seconds(3);
  ThreadCount policy_;
  std::mt19937 random_;
};

/// The share of steps within `time` that had other than `threads` threads.
double share_off(Machine& machine, std::uint32_t threads, Duration time) {
  const TimePoint end = machine.now() + time;
  int steps = 0;
  int off = 0;
  while (machine.now() < end) {
    ++steps;
    if (machine.step() != threads) ++off;
  }
  return static_cast<double>(off) / steps;
}

TEST(ThreadCountTest, StartsAtTheMaximumAndStaysThereOnAnIdleMachine) {
  for (const std::uint32_t threads : {2U, 4U, 16U}) {
    for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
      Machine machine(threads, threads, seed);
      EXPECT_EQ(share_off(machine, threads, seconds(60)), 0) << threads << " threads, " << seed;
    }
  }
}

TEST(ThreadCountTest, ALittleWorkOfOthersChangesNothing) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(2, 2, seed);
    machine.set_background(0.08);
    EXPECT_LT(share_off(machine, 2, seconds(60)), 0.01) << seed;
  }
}

TEST(ThreadCountTest, AThreadLeavesWithinAFewStepsWhenAnotherProgramTakesACore) {
  for (const StepKind kind : {StepKind::kDecode, StepKind::kPrompt}) {
    for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
      Machine machine(2, 2, seed);
      machine.set_kind(kind);
      machine.run(seconds(10));
      machine.set_others(1);
      int shared = 0;
      while (machine.step() > 1) ASSERT_LE(++shared, 6) << seed;
      EXPECT_EQ(share_off(machine, 1, seconds(60)), 0) << seed;
    }
  }
}

TEST(ThreadCountTest, ThreadsComeBackWithinFiveSecondsOfTheCoreBeingFree) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(2, 2, seed);
    machine.set_others(1);
    EXPECT_EQ(machine.run(seconds(10)), 1U);
    machine.set_others(0);
    EXPECT_LT(machine.time_until(2, seconds(10)), milliseconds(500)) << seed;
    EXPECT_EQ(share_off(machine, 2, seconds(10)), 0) << seed;
  }
}

TEST(ThreadCountTest, WhatComesAndGoesIsGivenWayToForLongerAndLonger) {
  Machine machine(2, 2);
  Duration longest(0);
  for (int i = 0; i < 12; ++i) {
    machine.set_others(1);
    machine.run(seconds(2));
    machine.set_others(0);
    const Duration took = machine.time_until(2, seconds(10));
    EXPECT_GE(took, longest / 2);
    EXPECT_LT(took, seconds(5)) << "never longer";
    longest = std::max(longest, took);
    machine.run(milliseconds(500));
  }
  EXPECT_GE(longest, milliseconds(3500));
  machine.run(ThreadCount::kLasting);
  machine.set_others(1);
  machine.run(seconds(2));
  machine.set_others(0);
  EXPECT_LT(machine.time_until(2, seconds(10)), milliseconds(500)) << "a lasting return is trusted";
}

TEST(ThreadCountTest, ShortGapsInABuildDoNotBringThreadsBack) {
  Machine machine(2, 2);
  machine.set_others(1);
  machine.run(seconds(1));
  for (int i = 0; i < 20; ++i) {
    machine.set_others(0);
    EXPECT_EQ(share_off(machine, 1, milliseconds(100)), 0);
    machine.set_others(1);
    EXPECT_EQ(share_off(machine, 1, milliseconds(500)), 0);
  }
}

TEST(ThreadCountTest, OfManyThreadsThoseLeaveWhoseCoresAreTaken) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(16, 16, seed);
    machine.run(seconds(2));
    machine.set_others(4);
    EXPECT_EQ(machine.run(seconds(5)), 12U) << seed;
    EXPECT_EQ(share_off(machine, 12, seconds(20)), 0) << seed;
    machine.set_others(1);
    EXPECT_EQ(machine.run(seconds(5)), 15U) << seed;
    machine.set_others(0);
    EXPECT_EQ(machine.run(seconds(5)), 16U) << seed;
  }
}

TEST(ThreadCountTest, CoresBeyondTheMaximumAreRoomForOthers) {
  Machine machine(8, 4);
  machine.set_others(4);
  EXPECT_EQ(share_off(machine, 4, seconds(20)), 0);
  machine.set_others(6);
  EXPECT_EQ(machine.run(seconds(5)), 2U);
}

TEST(ThreadCountTest, OneThreadRemainsHoweverMuchOthersTake) {
  Machine machine(2, 2);
  machine.set_others(20);
  EXPECT_EQ(machine.run(seconds(60)), 1U);
  EXPECT_EQ(machine.policy().threads(StepKind::kPrompt), 1U);
}

TEST(ThreadCountTest, AMaximumOfOneNeverChangesAndNeedsNoReading) {
  Machine machine(2, 1);
  machine.set_others(2);
  EXPECT_EQ(share_off(machine, 1, seconds(10)), 0);
  EXPECT_FALSE(machine.policy().wants_reading(ReadingTime::kBeforeStep, machine.now()));
  EXPECT_EQ(ThreadCount(0).threads(StepKind::kDecode), 1U);
}

TEST(ThreadCountTest, PromptsGiveWayToWholeProgramsOnly) {
  Machine machine(2, 2);
  machine.set_background(0.31);
  machine.run(seconds(10));
  EXPECT_EQ(machine.policy().threads(StepKind::kDecode), 1U);
  EXPECT_EQ(machine.policy().threads(StepKind::kPrompt), 2U);
}

TEST(ThreadCountTest, RoomDuringAPauseBringsThreadsBackAtOnce) {
  Machine machine(2, 2);
  machine.set_others(1);
  EXPECT_EQ(machine.run(seconds(5)), 1U);
  machine.pause(seconds(2));
  EXPECT_EQ(machine.step(), 1U) << "no room";
  machine.set_others(0);
  machine.pause(seconds(2));
  EXPECT_EQ(machine.step(), 2U);
}

TEST(ThreadCountTest, WhatOthersUsedDuringAPauseMakesNoThreadLeave) {
  Machine machine(2, 2);
  machine.run(seconds(5));
  machine.set_others(2);
  machine.pause(seconds(2));
  machine.set_others(0);
  EXPECT_EQ(share_off(machine, 2, seconds(5)), 0);
}

TEST(ThreadCountTest, WithoutReadingsItStaysAtTheMaximum) {
  Machine machine(2, 2);
  machine.set_others(1);
  EXPECT_EQ(machine.run(seconds(5)), 1U);
  machine.hide_readings();
  machine.run(ThreadCount::kInterval);
  EXPECT_EQ(share_off(machine, 2, seconds(10)), 0);
}

TEST(ThreadCountTest, TheSharesThatMakeThreadsLeaveAndComeBackAreExact) {
  const auto decode_after = [](ThreadCount& policy, TimePoint& now, double cores) {
    static Duration idle(0);
    now += seconds(1);
    idle += std::chrono::duration_cast<Duration>(std::chrono::duration<double>(cores));
    policy.observe(ReadingTime::kAfterStep, CoreTimes{now, idle, Duration(0)});
    return policy.threads(StepKind::kDecode);
  };
  ThreadCount policy(2);
  TimePoint now;
  decode_after(policy, now, 2);
  EXPECT_EQ(decode_after(policy, now, 1.71), 2U);
  EXPECT_EQ(decode_after(policy, now, 1.69), 1U);
  EXPECT_EQ(decode_after(policy, now, 1.79), 1U);
  EXPECT_EQ(decode_after(policy, now, 1.81), 2U);
}

TEST(ThreadCountTest, WantsAReadingAtTheStartAfterAnIntervalOfStepsAndAfterAPause) {
  ThreadCount policy(2);
  const TimePoint start;
  EXPECT_TRUE(policy.wants_reading(ReadingTime::kBeforeStep, start));
  policy.observe(ReadingTime::kBeforeStep, CoreTimes{start, {}, {}});
  const TimePoint next = start + ThreadCount::kInterval;
  EXPECT_FALSE(policy.wants_reading(ReadingTime::kAfterStep, next - Duration(1)));
  EXPECT_TRUE(policy.wants_reading(ReadingTime::kAfterStep, next));
  const TimePoint after_pause = next + ThreadCount::kInterval;
  EXPECT_FALSE(policy.wants_reading(ReadingTime::kBeforeStep, after_pause - Duration(1)));
  EXPECT_TRUE(policy.wants_reading(ReadingTime::kBeforeStep, after_pause));
}

TEST(ThreadCountTest, TimesThatRunBackwardsAreNoTimeAtAll) {
  const ReadingTime time = ReadingTime::kAfterStep;
  ThreadCount policy(2);
  const TimePoint start = TimePoint() + seconds(9);
  policy.observe(time, CoreTimes{start, seconds(5), seconds(5)});
  policy.observe(time, CoreTimes{start, seconds(1), seconds(1)});
  EXPECT_EQ(policy.threads(StepKind::kDecode), 2U) << "no time has passed";
  policy.observe(time, CoreTimes{start + seconds(1), seconds(0), seconds(3)});
  EXPECT_EQ(policy.threads(StepKind::kDecode), 2U) << "two cores' worth of ours";
}

constexpr std::string_view kStat =
    "cpu  300 30 30 1500 60 0 2 1 0 0\n"
    "cpu0 100 10 10 400 10 0 1 0 0 0\n"
    "cpu1 100 10 10 500 20 0 1 0 0 0\n"
    "cpu2 100 10 10 600 30 0 0 1 0 0\n"
    "intr 6869286 0 0\n";

TEST(CoreTimesTest, CountsIdleAndWaitingOfTheAllowedCores) {
  const auto all = [](unsigned) { return true; };
  EXPECT_EQ(idle_in(kStat, milliseconds(10), all), milliseconds(15600));
  const auto outer = [](unsigned core) { return core != 1; };
  EXPECT_EQ(idle_in(kStat, milliseconds(10), outer), milliseconds(10400));
}

TEST(CoreTimesTest, SaysNothingWithoutTheLinesItNeeds) {
  const auto all = [](unsigned) { return true; };
  const auto none = [](unsigned) { return false; };
  EXPECT_EQ(idle_in(kStat, milliseconds(10), none), std::nullopt);
  EXPECT_EQ(idle_in("", milliseconds(10), all), std::nullopt);
  EXPECT_EQ(idle_in("cpu  1 2 3 4 5\n", milliseconds(10), all), std::nullopt) << "no core's line";
  EXPECT_EQ(idle_in("cpu0 1 2 3 4\n", milliseconds(10), all), std::nullopt) << "cut off";
  EXPECT_EQ(idle_in("cpu0 1 2 3 x 5\n", milliseconds(10), all), std::nullopt);
  EXPECT_EQ(idle_in("cpux 1 2 3 4 5\n", milliseconds(10), all), std::nullopt);
  EXPECT_EQ(idle_in("cpu0 1 2 3 4 5", milliseconds(10), all), milliseconds(90)) << "no line end";
}

#ifdef __linux__
TEST(CoreTimesTest, ReadsThisMachine) {
  FakeClock clock;
  const std::optional<CoreTimes> first = read_core_times(clock);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->at, clock.now());
  EXPECT_GT(first->own, Duration(0));
  clock.advance(seconds(1));
  const std::optional<CoreTimes> second = read_core_times(clock);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->at - first->at, seconds(1));
  EXPECT_GE(second->own, first->own);
}
#endif

}  // namespace
}  // namespace pensieve::engine
