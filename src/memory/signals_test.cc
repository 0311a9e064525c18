// The decision what signals do to a level, edge by edge; and how counters become signals.
#include "memory/signals.h"

#include <string>

#include <gtest/gtest.h>

#include "memory/testing/fake_signal_source.h"

namespace pensieve::memory {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Signals stalling(double some, double full, Scope scope = Scope::kOwn) {
  Signals signals;
  signals.stalls.value = Stalls{some, full, scope, scope == Scope::kOwn ? "cgroup /a" : "machine"};
  return signals;
}
Signals swapping(double pages_per_second, Scope scope = Scope::kOwn) {
  Signals signals;
  signals.swap_in.value = SwapIn{pages_per_second, scope, "there"};
  return signals;
}
Signals with_events(GroupEvents events) {
  Signals signals;
  signals.events.value = std::move(events);
  return signals;
}
Level level_with(Level measured, const Signals& signals, bool machine_limits = true) {
  return worsen(measured, signals, machine_limits).level;
}

constexpr Level kAll[] = {Level::kSafe, Level::kCaution, Level::kWarning, Level::kCritical,
                          Level::kEmergency};

TEST(WorsenTest, WithoutSignalsTheLevelIsTheMeasuredOne) {
  for (const Level level : kAll) {
    EXPECT_EQ(level_with(level, Signals()), level);
    EXPECT_EQ(worsen(level, Signals(), true).by, "");
  }
}

TEST(WorsenTest, AtSafeNothingIsHeard) {
  Signals all = stalling(100, 100);
  all.swap_in = swapping(1e6).swap_in;
  all.events = with_events({true, true, true, "cgroup /a"}).events;
  all.verdict.value = KernelVerdict::kCritical;
  all.verdict.unreadable = "gone";
  EXPECT_EQ(level_with(Level::kSafe, all), Level::kSafe);
}

TEST(WorsenTest, ATenthOfTheTimeAtAStandstillIsOneLevelAndFourTenthsAreTwo) {
  EXPECT_EQ(level_with(Level::kCaution, stalling(9.99, 9.99)), Level::kCaution);
  EXPECT_EQ(level_with(Level::kCaution, stalling(10, 10)), Level::kWarning);
  EXPECT_EQ(level_with(Level::kCaution, stalling(39.99, 39.99)), Level::kWarning);
  EXPECT_EQ(level_with(Level::kCaution, stalling(40, 40)), Level::kCritical);
  EXPECT_EQ(level_with(Level::kWarning, stalling(10, 10)), Level::kCritical);
}

TEST(WorsenTest, EmergencyIsReachedFromCriticalOnly) {
  EXPECT_EQ(level_with(Level::kWarning, stalling(100, 100)), Level::kCritical);
  EXPECT_EQ(level_with(Level::kCritical, stalling(10, 10)), Level::kEmergency);
  EXPECT_EQ(level_with(Level::kEmergency, stalling(100, 100)), Level::kEmergency);
}

TEST(WorsenTest, TasksThatWaitByThemselvesCountFromAFifthOfTheTimeOn) {
  EXPECT_EQ(level_with(Level::kCaution, stalling(19.99, 0)), Level::kCaution);
  EXPECT_EQ(level_with(Level::kCaution, stalling(20, 0)), Level::kWarning);
  EXPECT_EQ(level_with(Level::kCaution, stalling(100, 0)), Level::kWarning);
}

TEST(WorsenTest, AReachedLimitAloneSaysNothingButWithStallsItDoes) {
  Signals signals = with_events({.limit_reached = true, .where = "cgroup /a"});
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
  signals.stalls = stalling(4.99, 0).stalls;
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
  signals.stalls = stalling(5, 0).stalls;
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kCritical);
}

TEST(WorsenTest, EventsThatTellOfAShortageAreOneLevel) {
  EXPECT_EQ(
      level_with(Level::kCaution, with_events({.protection_lost = true, .where = "cgroup /a"})),
      Level::kWarning);
  const Worsened killed =
      worsen(Level::kWarning, with_events({.out_of_memory = true, .where = "cgroup /a"}), true);
  EXPECT_EQ(killed.level, Level::kCritical);
  EXPECT_EQ(killed.by, "the kernel ran out of memory for cgroup /a");
}

TEST(WorsenTest, SwapInCountsFromAThousandPagesPerSecondOn) {
  EXPECT_EQ(level_with(Level::kWarning, swapping(999.9)), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, swapping(1000)), Level::kCritical);
  EXPECT_EQ(level_with(Level::kCritical, swapping(1e9)), Level::kEmergency);
  Signals not_measured;
  not_measured.swap_in.value = SwapIn{std::nullopt, Scope::kOwn, "there"};
  EXPECT_EQ(level_with(Level::kWarning, not_measured), Level::kWarning);
}

TEST(WorsenTest, StallsOfTheWholeMachineNeverRefuse) {
  const Signals signals = stalling(100, 100, Scope::kMachine);
  EXPECT_EQ(level_with(Level::kCaution, signals), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
  EXPECT_EQ(level_with(Level::kCritical, signals), Level::kCritical);
  EXPECT_EQ(level_with(Level::kCaution, stalling(100, 9.99, Scope::kMachine)), Level::kCaution);
}

TEST(WorsenTest, SwapInOfTheWholeMachineAloneNeverRefuses) {
  const Signals signals = swapping(1e6, Scope::kMachine);
  EXPECT_EQ(level_with(Level::kCaution, signals), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
}

TEST(WorsenTest, StallsAndSwapInOfTheMachineTogetherAreCriticalAtMost) {
  Signals storm = stalling(60, 30, Scope::kMachine);
  storm.swap_in = swapping(5000, Scope::kMachine).swap_in;
  EXPECT_EQ(level_with(Level::kCaution, storm), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, storm), Level::kCritical);
  EXPECT_EQ(level_with(Level::kCritical, storm), Level::kCritical);
  EXPECT_EQ(worsen(Level::kWarning, storm, true).by,
            "all tasks waited for memory 30 % of the time (machine), and 5000 pages/s come back "
            "from swap (there)");
}

TEST(WorsenTest, WhereAGroupLimitsUsTheMachinesPressureIsNotOurs) {
  Signals storm = stalling(100, 100, Scope::kMachine);
  storm.swap_in = swapping(1e6, Scope::kMachine).swap_in;
  EXPECT_EQ(level_with(Level::kWarning, storm, /*machine_limits=*/false), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, stalling(10, 10), false), Level::kCritical);
}

TEST(WorsenTest, MacosVerdictsWarnOrRefuseAndNeverEndWork) {
  Signals signals;
  signals.verdict.value = KernelVerdict::kNormal;
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
  signals.verdict.value = KernelVerdict::kWarning;
  EXPECT_EQ(level_with(Level::kCaution, signals), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
  signals.verdict.value = KernelVerdict::kCritical;
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kCritical);
  EXPECT_EQ(level_with(Level::kCritical, signals), Level::kCritical);
}

TEST(WorsenTest, AnUnreadableSignalIsOneLevelAndNeverLessThanItSaidLast) {
  Signals signals = stalling(0, 0);
  signals.stalls.unreadable = "memory.pressure: gone";
  const Worsened doubt = worsen(Level::kWarning, signals, true);
  EXPECT_EQ(doubt.level, Level::kCritical);
  EXPECT_EQ(doubt.by, "a signal is unreadable: memory.pressure: gone");
  signals.stalls.value = stalling(50, 50).stalls.value;
  EXPECT_EQ(level_with(Level::kCaution, signals), Level::kCritical);
  EXPECT_TRUE(signals.any_unreadable());
  EXPECT_EQ(unreadable_signals(signals), "memory.pressure: gone");
}

TEST(WorsenTest, AnUnreadableSignalOfTheMachineDoesNotRefuse) {
  Signals signals = stalling(0, 0, Scope::kMachine);
  signals.stalls.unreadable = "gone";
  EXPECT_EQ(level_with(Level::kCaution, signals), Level::kWarning);
  EXPECT_EQ(level_with(Level::kWarning, signals), Level::kWarning);
  EXPECT_EQ(level_with(Level::kCaution, signals, /*machine_limits=*/false), Level::kCaution);
}

TEST(WorsenTest, NoCombinationMakesALevelBetterOrMoreThanTwoLevelsWorse) {
  for (const Level measured : kAll) {
    for (const double percent : {0.0, 5.0, 10.0, 20.0, 40.0, 100.0}) {
      for (const double pages : {0.0, 1e3, 1e9}) {
        for (const Scope scope : {Scope::kOwn, Scope::kMachine}) {
          for (const bool broken : {false, true}) {
            Signals signals = stalling(percent, percent / 2, scope);
            signals.swap_in = swapping(pages, scope).swap_in;
            signals.events = with_events({percent > 5, percent > 10, percent > 20, "g"}).events;
            if (broken) signals.swap_in.unreadable = "broken";
            const Level level = level_with(measured, signals);
            EXPECT_GE(level, measured);
            EXPECT_LE(static_cast<unsigned>(level),
                      static_cast<unsigned>(measured) + kWorsenedLevelsMax);
          }
        }
      }
    }
  }
}

class SignalTrackerTest : public testing::Test {
 protected:
  /// A quarter of a second passes, then the signals are looked at.
  const Signals& tick() {
    now_ += milliseconds(250);
    tracker_.observe(source_.read(), now_);
    return tracker_.signals();
  }

  FakeSignalSource source_;
  SignalTracker tracker_;
  TimePoint now_{};
};

TEST_F(SignalTrackerTest, AStallThatIsOverEndsWithinTwoSecondsAlthoughTheAverageLags) {
  for (int quarter = 0; quarter < 20; ++quarter) {
    RawPressure raw;
    raw.pressure.full = {30, 30, 30, milliseconds(75) * quarter};  // 30 % of each 250 ms.
    raw.where = "cgroup /own";
    RawSignals signals;
    signals.pressure = raw;
    now_ += milliseconds(250);
    tracker_.observe(signals, now_);
  }
  EXPECT_NEAR(tracker_.signals().stalls.value->full_percent, 30, 0.1);
  RawSignals over;
  RawPressure raw;
  raw.pressure.full = {25, 30, 30, milliseconds(75) * 19};  // The average still says 25 %.
  raw.where = "cgroup /own";
  over.pressure = raw;
  for (int quarter = 0; quarter < 8; ++quarter) {
    now_ += milliseconds(250);
    tracker_.observe(over, now_);
  }
  EXPECT_DOUBLE_EQ(tracker_.signals().stalls.value->full_percent, 0);
}

TEST_F(SignalTrackerTest, ABlipDoesNotCountBeforeTheAverageShowsIt) {
  RawPressure raw;
  raw.pressure.full = {0, 0, 0, milliseconds(0)};
  RawSignals signals;
  signals.pressure = raw;
  tracker_.observe(signals, now_);
  raw.pressure.full = {4, 0, 0, milliseconds(900)};  // A whole second of standstill, just now.
  signals.pressure = raw;
  tracker_.observe(signals, now_ + seconds(1));
  EXPECT_DOUBLE_EQ(tracker_.signals().stalls.value->full_percent, 4);
}

TEST_F(SignalTrackerTest, SwapInIsARateOfSeveralSeconds) {
  source_.swapped_in(1000);
  EXPECT_EQ(tick().swap_in.value->pages_per_second, std::nullopt);
  for (int quarter = 0; quarter < 16; ++quarter) {
    source_.swapped_in(500);
    tick();
  }
  EXPECT_NEAR(tracker_.signals().swap_in.value->pages_per_second.value(), 2000, 1);
}

TEST_F(SignalTrackerTest, OnlyEventsThatAreAddedCountAndOnlyForTenSeconds) {
  RawEvents events{.oom_kill = 7, .where = "cgroup /own"};
  source_.set_events(events);
  EXPECT_FALSE(tick().events.value->out_of_memory) << "of before we looked";
  events.oom_kill = 8;
  source_.set_events(events);
  EXPECT_TRUE(tick().events.value->out_of_memory);
  for (int quarter = 0; quarter < 40; ++quarter) tick();
  EXPECT_TRUE(tracker_.signals().events.value->out_of_memory) << "exactly 10 s ago";
  EXPECT_FALSE(tick().events.value->out_of_memory);
}

TEST_F(SignalTrackerTest, ReachedLimitsAndLostProtectionAreToldApart) {
  RawEvents events{.where = "cgroup /own"};
  source_.set_events(events);
  tick();
  events.high = 1;
  source_.set_events(events);
  EXPECT_TRUE(tick().events.value->limit_reached);
  EXPECT_FALSE(tracker_.signals().events.value->protection_lost);
  events.low = 1;
  source_.set_events(events);
  EXPECT_TRUE(tick().events.value->protection_lost);
  EXPECT_FALSE(tracker_.signals().events.value->out_of_memory);
}

TEST_F(SignalTrackerTest, AGroupThatStandsStillForMemoryCountsAtTheFirstLook) {
  source_.set_events({.waits_out_of_memory = true, .where = "cgroup /own"});
  EXPECT_TRUE(tick().events.value->out_of_memory);
}

TEST_F(SignalTrackerTest, AnotherGroupsCountsAreNotCompared) {
  source_.set_events({.oom_kill = 1, .where = "cgroup /a"});
  tick();
  source_.set_events({.oom_kill = 5, .where = "cgroup /b"});
  EXPECT_FALSE(tick().events.value->out_of_memory);
}

TEST_F(SignalTrackerTest, AFailedReadKeepsTheLastValueAndSaysWhy) {
  source_.stall(50, 50);
  tick();
  source_.fail_pressure();
  const Signals& signals = tick();
  EXPECT_DOUBLE_EQ(signals.stalls.value->full_percent, 50);
  EXPECT_EQ(signals.stalls.unreadable, "injected: signal unreadable");
  source_.stall(0, 0);
  EXPECT_EQ(tick().stalls.unreadable, "");
}

TEST_F(SignalTrackerTest, WhatIsAbsentHasNeitherValueNorDoubt) {
  const Signals& signals = tick();
  EXPECT_FALSE(signals.any_unreadable());
  EXPECT_EQ(describe(signals), "no PSI here, no swap-in here, no group events here");
  EXPECT_FALSE(tracker_.outdated().any_unreadable());
}

TEST_F(SignalTrackerTest, OutdatedSignalsAreUnreadable) {
  source_.stall(1, 1);
  tick();
  EXPECT_FALSE(tracker_.signals().any_unreadable());
  EXPECT_EQ(unreadable_signals(tracker_.outdated()), "not looked at for too long");
}

TEST(DescribeSignalsTest, SaysEachSignalWithItsFigureAndWhoseItIs) {
  Signals signals = stalling(3.14, 0.5);
  signals.swap_in = swapping(12, Scope::kMachine).swap_in;
  signals.events = with_events({true, false, true, "cgroup /a"}).events;
  EXPECT_EQ(describe(signals),
            "PSI some 3.1 % full 0.5 % (cgroup /a), swap-in 12 pages/s (there), "
            "limit reached, out of memory (cgroup /a)");
  signals.stalls.unreadable = "x";
  signals.verdict.value = KernelVerdict::kWarning;
  EXPECT_EQ(describe(signals),
            "PSI unreadable, swap-in 12 pages/s (there), limit reached, out of memory (cgroup /a), "
            "macOS pressure warning");
}

}  // namespace
}  // namespace pensieve::memory
