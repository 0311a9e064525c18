// Drives Monitor with a clock and a source that the test owns. No sleeps, no real memory: one
// second of the test is one call of tick(), so a whole incident reads from top to bottom.
#include "memory/monitor.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"
#include "memory/admission.h"
#include "memory/testing/fake_memory_source.h"
#include "memory/testing/fake_signal_source.h"

namespace pensieve::memory {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class MonitorTest : public testing::Test {
 protected:
  /// One second passes, then the monitor reads `available`.
  void tick(Bytes available) {
    source_.set_available(available);
    clock_.advance(seconds(1));
    monitor_.sample();
  }
  void tick_failing() {
    source_.fail("injected: /proc/meminfo vanished");
    clock_.advance(seconds(1));
    monitor_.sample();
  }
  Level level() const { return monitor_.status().level; }

  FakeClock clock_;
  FakeMemorySource source_;
  Monitor monitor_{source_,
                   clock_,
                   {.floors = {},
                    .stale_after = seconds(3),
                    .recovery_hold = seconds(10),
                    .fresh_for = std::chrono::milliseconds(10)}};
};

TEST_F(MonitorTest, RefusesUntilTheFirstReading) {
  EXPECT_EQ(level(), kLevelWhenUnknown);
  EXPECT_EQ(monitor_.status().available, std::nullopt);
  tick(8_GiB);
  EXPECT_EQ(level(), Level::kSafe);
}

TEST_F(MonitorTest, AFloorItselfIsStillOnTheGoodSide) {
  tick(2_GiB);
  EXPECT_EQ(level(), Level::kCaution);
  tick(saturating_sub(2_GiB, Bytes(1)));
  EXPECT_EQ(level(), Level::kWarning);
}

TEST_F(MonitorTest, WorsensAtOnceAndRecoversOnlyAfterTheHold) {
  tick(8_GiB);
  tick(700_MiB);
  EXPECT_EQ(level(), Level::kCritical);
  for (int second = 0; second < 10; ++second) {
    tick(8_GiB);
    EXPECT_EQ(level(), Level::kCritical) << "after " << second << " s of plenty";
  }
  tick(8_GiB);
  EXPECT_EQ(level(), Level::kSafe);
}

TEST_F(MonitorTest, RecoversOnlyAsFarAsTheWorstReadingOfTheHold) {
  tick(700_MiB);
  tick(8_GiB);
  tick(1500_MiB);  // Still better than kCritical, but only a kWarning.
  for (int second = 0; second < 9; ++second) tick(8_GiB);
  EXPECT_EQ(level(), Level::kWarning);
}

TEST_F(MonitorTest, AFigureTooOldToTrustIsNotUsed) {
  tick(8_GiB);
  tick_failing();
  tick_failing();
  tick_failing();
  EXPECT_EQ(level(), Level::kSafe) << "3 s old: at stale_after, not past it";
  tick_failing();
  EXPECT_EQ(level(), kLevelWhenUnknown);
  EXPECT_EQ(monitor_.status().available, std::nullopt);
  EXPECT_EQ(monitor_.status().failed_reads, 4u);
  tick(8_GiB);
  EXPECT_EQ(level(), Level::kSafe) << "a fresh reading ends the doubt";
}

TEST_F(MonitorTest, NotKnowingNeverImprovesTheLevel) {
  tick(100_MiB);
  for (int second = 0; second < 5; ++second) tick_failing();
  EXPECT_EQ(level(), Level::kEmergency);
}

TEST_F(MonitorTest, AnAbsurdReadingCountsAsAFailedOne) {
  for (const Reading& absurd : {Reading{9_GiB, 8_GiB, "gpu"}, Reading{Bytes(), Bytes(), "gpu"}}) {
    source_.set(absurd);
    monitor_.sample();
    EXPECT_EQ(level(), kLevelWhenUnknown);
    EXPECT_EQ(monitor_.status().available, std::nullopt);
  }
  EXPECT_EQ(monitor_.status().failed_reads, 2u);
}

TEST_F(MonitorTest, StatusSaysWhatLimitsUsAndHowMuchThereIs) {
  source_.set({5_GiB, 6_GiB, "cgroup /a/b"});
  monitor_.sample();
  const Monitor::Status status = monitor_.status();
  EXPECT_EQ(status.available, 5_GiB);
  EXPECT_EQ(status.total, 6_GiB);
  EXPECT_EQ(status.limited_by, "cgroup /a/b");
  EXPECT_FALSE(status.recovering);
  EXPECT_EQ(status.last_failure, "");
}

TEST_F(MonitorTest, StatusSaysNothingOfAnOldReadingButWhyTheLastOneFailed) {
  tick(8_GiB);
  for (int second = 0; second < 4; ++second) tick_failing();
  const Monitor::Status status = monitor_.status();
  EXPECT_EQ(status.total, std::nullopt);
  EXPECT_EQ(status.limited_by, "");
  EXPECT_EQ(status.last_failure, "injected: /proc/meminfo vanished");
}

TEST_F(MonitorTest, StatusSaysThatALevelIsOnlyHeld) {
  tick(700_MiB);
  EXPECT_FALSE(monitor_.status().recovering);
  tick(8_GiB);
  EXPECT_TRUE(monitor_.status().recovering);
  for (int second = 0; second < 10; ++second) tick(8_GiB);
  EXPECT_FALSE(monitor_.status().recovering);
}

TEST_F(MonitorTest, AFailedReadingStartsTheHoldAnew) {
  tick(700_MiB);
  for (int second = 0; second < 9; ++second) tick(8_GiB);
  tick_failing();
  for (int second = 0; second < 10; ++second) {
    tick(8_GiB);
    EXPECT_EQ(level(), Level::kCritical);
  }
  tick(8_GiB);
  EXPECT_EQ(level(), Level::kSafe);
}

class MonitorCheckTest : public testing::Test {
 protected:
  FakeClock clock_;
  FakeMemorySource source_;
  Monitor monitor_{source_, clock_, Monitor::Options()};
};

TEST_F(MonitorCheckTest, TakesAReadingOnlyWhereTheLastIsOlderThanFreshFor) {
  source_.set_available(8_GiB);
  EXPECT_EQ(monitor_.check().level, Level::kSafe);
  EXPECT_EQ(source_.reads(), 1u);
  clock_.advance(std::chrono::milliseconds(10));
  monitor_.check();
  EXPECT_EQ(source_.reads(), 1u) << "exactly fresh_for old is fresh";
  clock_.advance(Duration(1));
  monitor_.check();
  EXPECT_EQ(source_.reads(), 2u);
}

TEST_F(MonitorCheckTest, UsesTheReadingThatSampleTook) {
  source_.set_available(8_GiB);
  monitor_.sample();
  monitor_.check();
  EXPECT_EQ(source_.reads(), 1u);
}

TEST_F(MonitorCheckTest, SeesPressureThatCameSinceTheLastSample) {
  source_.set_available(8_GiB);
  monitor_.sample();
  clock_.advance(std::chrono::milliseconds(50));
  source_.set_available(700_MiB);
  EXPECT_EQ(monitor_.status().level, Level::kSafe);
  EXPECT_EQ(monitor_.check().level, Level::kCritical);
}

TEST_F(MonitorCheckTest, FailedReadingsAreNotRetriedMoreOftenThanGoodOnes) {
  for (int request = 0; request < 100; ++request) {
    EXPECT_EQ(monitor_.check().level, kLevelWhenUnknown);
  }
  EXPECT_EQ(source_.reads(), 1u);
  clock_.advance(std::chrono::milliseconds(11));
  monitor_.check();
  EXPECT_EQ(source_.reads(), 2u);
}

TEST_F(MonitorCheckTest, AfterAFailedReadingTheLastGoodOneGoesOnAgeing) {
  source_.set_available(8_GiB);
  monitor_.check();
  source_.fail("injected");
  clock_.advance(seconds(3));
  EXPECT_EQ(monitor_.check().level, Level::kSafe) << "at stale_after, not past it";
  clock_.advance(Duration(1));
  EXPECT_EQ(monitor_.check().level, kLevelWhenUnknown);
}

TEST_F(MonitorCheckTest, WithTheDefaultsWorkIsTakenAgainWithinTwoSecondsOfRelief) {
  source_.set_available(700_MiB);
  monitor_.sample();
  source_.set_available(8_GiB);  // Relief, right after a sample.
  Duration since_relief = Duration::zero();
  while (monitor_.status().level >= Level::kCritical) {
    ASSERT_LT(since_relief, seconds(2));
    clock_.advance(Monitor::kSampleEvery);
    since_relief += Monitor::kSampleEvery;
    monitor_.sample();
  }
}

class MonitorSignalsTest : public testing::Test {
 protected:
  MonitorSignalsTest() { source_.set_available(1500_MiB); }  // Warning.

  /// A second passes in which tasks waited, then the monitor samples.
  Monitor::Status tick(double full_percent) {
    signals_.stall(full_percent, full_percent);
    clock_.advance(seconds(1));
    monitor_.sample();
    return monitor_.status();
  }

  FakeClock clock_;
  FakeMemorySource source_;
  FakeSignalSource signals_;
  Monitor monitor_{source_, &signals_, clock_, Monitor::Options()};
};

TEST_F(MonitorSignalsTest, SignalsMakeTheLevelWorseAtOnceAndTheStatusSaysWhy) {
  EXPECT_EQ(tick(0).level, Level::kWarning);
  const Monitor::Status status = tick(20);
  EXPECT_EQ(status.level, Level::kCritical);
  EXPECT_EQ(status.measured, Level::kWarning);
  EXPECT_EQ(status.worsened_by, "all tasks waited for memory 20 % of the time (cgroup /own)");
  EXPECT_FALSE(status.recovering);
  EXPECT_TRUE(std::holds_alternative<Refuse>(decide(status)));
}

TEST_F(MonitorSignalsTest, TheLevelRecoversAfterTheHoldOnceTheSignalsAreQuiet) {
  tick(50);
  signals_.stall(0, 0);
  clock_.advance(seconds(1));
  monitor_.sample();
  EXPECT_EQ(monitor_.status().level, Level::kCritical);
  EXPECT_TRUE(monitor_.status().recovering);
  EXPECT_EQ(monitor_.status().worsened_by, "");
  clock_.advance(seconds(1));
  monitor_.sample();
  EXPECT_EQ(monitor_.status().level, Level::kWarning);
}

TEST_F(MonitorSignalsTest, AtSafeTheyAreShownAndChangeNothing) {
  source_.set_available(3_GiB);
  const Monitor::Status status = tick(90);
  EXPECT_EQ(status.level, Level::kSafe);
  EXPECT_DOUBLE_EQ(status.signals->stalls.value->full_percent, 90);
}

TEST_F(MonitorSignalsTest, TheRequestPathReadsNoSignalsButGoesByTheLastOnes) {
  tick(20);
  const std::uint64_t reads = signals_.reads();
  source_.set_available(2500_MiB);
  clock_.advance(milliseconds(200));
  EXPECT_EQ(monitor_.check().worsened_by,
            "all tasks waited for memory 20 % of the time (cgroup /own)");
  EXPECT_EQ(signals_.reads(), reads);
}

TEST_F(MonitorSignalsTest, SignalsAreNotReadMoreOftenThanTheyChange) {
  for (int tick = 0; tick < 100; ++tick) {
    clock_.advance(milliseconds(10));
    monitor_.sample();
  }
  EXPECT_EQ(signals_.reads(), 4U);
}

TEST_F(MonitorSignalsTest, SignalsThatNobodyHasLookedAtForTooLongCountAsUnreadable) {
  tick(0);
  clock_.advance(seconds(3));
  EXPECT_EQ(monitor_.check().level, Level::kWarning) << "3 s old: at stale_after, not past it";
  clock_.advance(milliseconds(11));
  const Monitor::Status status = monitor_.check();
  EXPECT_EQ(status.level, Level::kCritical);
  EXPECT_TRUE(status.signals->any_unreadable());
}

TEST_F(MonitorSignalsTest, TheDescriptionHasEveryFigureThatLedToTheLevel) {
  EXPECT_EQ(describe(tick(20)),
            "1.46GB of 16.00GB available, limited by machine; level Critical, worsened: all tasks "
            "waited for memory 20 % of the time (cgroup /own); critical floor 1.00GB, emergency "
            "0.50GB; PSI some 20.0 % full 20.0 % (cgroup /own), no swap-in here, no group events "
            "here");
  source_.fail("injected: gone");
  clock_.advance(seconds(4));
  monitor_.sample();
  EXPECT_TRUE(describe(monitor_.status())
                  .starts_with("available memory unknown (injected: gone); level Critical;"))
      << describe(monitor_.status());
}

TEST_F(MonitorTest, WithoutASourceOfSignalsTheDescriptionDoesNotClaimToHaveLooked) {
  tick(8_GiB);
  EXPECT_FALSE(monitor_.status().signals.has_value());
  EXPECT_TRUE(describe(monitor_.status()).ends_with("; no signals are looked at"))
      << describe(monitor_.status());
}

class SampleIntervalTest : public testing::Test {
 protected:
  Duration interval_at(Bytes available) {
    source_.set_available(available);
    monitor_.sample();
    return monitor_.sample_interval();
  }

  FakeClock clock_;
  FakeMemorySource source_;
  Monitor monitor_{source_, clock_, Monitor::Options()};
};

TEST_F(SampleIntervalTest, ShrinksWithTheDistanceToTheNextFloorThatMatters) {
  EXPECT_EQ(monitor_.sample_interval(), milliseconds(40)) << "nothing is known yet";
  EXPECT_EQ(interval_at(16_GiB), milliseconds(250));
  EXPECT_EQ(interval_at(2_GiB), milliseconds(165));
  EXPECT_EQ(interval_at(1_GiB), milliseconds(40));
  EXPECT_EQ(interval_at(768_MiB), milliseconds(40) + std::chrono::microseconds(31250));
  EXPECT_EQ(interval_at(512_MiB), milliseconds(40));
  EXPECT_EQ(interval_at(Bytes()), milliseconds(40));
}

TEST_F(SampleIntervalTest, EveryCrossingIsSeenWithinFiftyMilliseconds) {
  for (std::uint64_t mib = 1; mib < 8192; mib += 7) {
    const Bytes available = Bytes(mib << 20);
    const Duration interval = interval_at(available);
    for (const Bytes floor : {Floors().critical, Floors().emergency}) {
      if (available < floor) continue;
      const double seconds_to_floor =
          to_gb(saturating_sub(available, floor)) / to_gb(Monitor::kFastestTaker);
      EXPECT_LT(std::chrono::duration<double>(interval).count(), seconds_to_floor + 0.050);
    }
  }
}

TEST(MonitorDeathTest, FloorsInTheWrongOrderAreAFault) {
  FakeClock clock;
  FakeMemorySource source;
  Monitor::Options options;
  options.floors.warning = 5_GiB;
  EXPECT_DEATH(Monitor(source, clock, options), "CHECK failed: options.floors.ordered");
}

TEST(MonitorThreadsTest, StatusMayBeAskedFromOtherThreadsWhileOneSamples) {
  FakeClock clock;
  FakeMemorySource source;
  source.set_available(8_GiB);
  Monitor monitor(source, clock, Monitor::Options());
  monitor.sample();
  std::vector<std::thread> askers;
  for (int asker = 0; asker < 3; ++asker) {
    askers.emplace_back([&monitor] {
      for (int i = 0; i < 2000; ++i) EXPECT_EQ(monitor.status().level, Level::kSafe);
    });
  }
  for (int i = 0; i < 2000; ++i) monitor.sample();
  for (std::thread& asker : askers) asker.join();
}

}  // namespace
}  // namespace pensieve::memory
