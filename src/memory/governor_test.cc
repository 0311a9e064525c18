// The ladder, climbed and descended with a clock that the test moves. One call of at() is one
// sample of the monitor.
#include "memory/governor.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"

namespace pensieve::memory {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTick = milliseconds(250);

Bytes below(Bytes floor) {
  return saturating_sub(floor, Bytes(1));
}

class GovernorTest : public testing::Test {
 protected:
  /// A tick passes, then the governor sees this much available, at the level that it stands for.
  Orders at(Bytes available) {
    situation_.available = available;
    situation_.level = level_for(available, Floors());
    situation_.recovering = false;
    return again();
  }
  /// The reading is better than the level that the monitor holds.
  Orders held_at(Level level, Bytes available) {
    situation_.available = available;
    situation_.level = level;
    situation_.recovering = true;
    return again();
  }
  Orders without_a_reading() {
    situation_.available = std::nullopt;
    situation_.level = std::max(situation_.level, kLevelWhenUnknown);
    situation_.recovering = false;
    return again();
  }
  Orders again() {
    clock_.advance(kTick);
    return governor_.step(situation_, clock_.now());
  }
  Governor::Status status() const { return governor_.status(clock_.now()); }
  std::uint64_t entered(Rung rung) const {
    return status().entered.at(static_cast<std::size_t>(rung));
  }
  std::uint64_t left(Rung rung) const { return status().left.at(static_cast<std::size_t>(rung)); }

  FakeClock clock_;
  Governor governor_{Governor::Options()};
  Situation situation_;
};

TEST_F(GovernorTest, AtSafeNothingIsOrdered) {
  situation_.engines = Engines::kIdle;
  situation_.idle_for = std::chrono::hours(1);
  situation_.parked = 1_GiB;
  const Orders orders = at(3_GiB);
  EXPECT_EQ(orders.rung(), Rung::kNone);
  EXPECT_TRUE(orders.caches_may_grow());
  EXPECT_FALSE(orders.small_steps() || orders.spill_caches() || orders.unload_idle() ||
               orders.refuse() || orders.end_newest() || orders.drop_engines() ||
               orders.shut_down());
  EXPECT_EQ(status().whose, Whose::kNone);
  EXPECT_TRUE(status().done.empty());
}

TEST_F(GovernorTest, AtCautionCachesStopGrowingAndNothingElseHappens) {
  const Orders orders = at(below(3_GiB));
  EXPECT_EQ(orders.rung(), Rung::kHoldCaches);
  EXPECT_FALSE(orders.caches_may_grow());
  EXPECT_FALSE(orders.small_steps());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(at(2_GiB).rung(), Rung::kHoldCaches);
}

TEST_F(GovernorTest, AtWarningEachRungGetsItsTimeBeforeTheNext) {
  EXPECT_EQ(at(below(2_GiB)).rung(), Rung::kSmallSteps) << "at once";
  EXPECT_EQ(again().rung(), Rung::kSmallSteps);
  EXPECT_EQ(again().rung(), Rung::kSpillCaches);
  EXPECT_EQ(again().rung(), Rung::kSpillCaches);
  EXPECT_EQ(again().rung(), Rung::kUnloadIdle);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(at(1_GiB).rung(), Rung::kUnloadIdle);
}

TEST_F(GovernorTest, AtWarningAModelIsUnloadedOnlyWhenItHasBeenIdleForAWhile) {
  situation_.engines = Engines::kIdle;
  for (int i = 0; i < 5; ++i) at(1_GiB);
  situation_.idle_for = seconds(10) - Duration(1);
  EXPECT_FALSE(again().unload_idle());
  situation_.idle_for = seconds(10);
  EXPECT_TRUE(again().unload_idle());
  situation_.engines = Engines::kBusy;
  EXPECT_FALSE(again().unload_idle());
  situation_.engines = Engines::kLoading;
  EXPECT_FALSE(again().unload_idle()) << "what is being loaded at Warning fits";
}

TEST_F(GovernorTest, AtCriticalRequestsAreRefusedAndModelsThatServeNobodyGoAtOnce) {
  situation_.engines = Engines::kIdle;
  EXPECT_FALSE(at(1_GiB).refuse()) << "at the floor itself";
  const Orders orders = at(below(1_GiB));
  EXPECT_EQ(orders.rung(), Rung::kRefuse);
  EXPECT_TRUE(orders.refuse() && orders.unload_idle() && orders.spill_caches() &&
              orders.small_steps());
  situation_.engines = Engines::kLoading;
  EXPECT_TRUE(again().unload_idle()) << "a load would only make it worse";
}

TEST_F(GovernorTest, AtCriticalRunningRequestsGoOn) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 3;
  at(below(1_GiB));
  for (int i = 0; i < 1000; ++i) {
    const Orders orders = at(512_MiB);
    ASSERT_FALSE(orders.end_newest() || orders.drop_engines() || orders.unload_idle());
  }
}

TEST_F(GovernorTest, AtEmergencyTheNewestRequestEndsAtOnceAndOneMoreEachTick) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 3;
  EXPECT_FALSE(at(512_MiB).end_newest()) << "at the floor itself";
  for (int i = 0; i < 3; ++i) {
    const Orders orders = at(below(512_MiB));
    EXPECT_EQ(orders.rung(), Rung::kEndRunning);
    EXPECT_TRUE(orders.end_newest());
    EXPECT_FALSE(orders.drop_engines());
    clock_.advance(milliseconds(100));
    const Orders too_early = governor_.step(situation_, clock_.now());
    EXPECT_FALSE(too_early.end_newest()) << "what was ended has had no time to help";
    --situation_.requests_running;
  }
  const Orders orders = again();
  EXPECT_EQ(orders.rung(), Rung::kDropEngines) << "nothing is left to end";
  EXPECT_TRUE(orders.drop_engines());
  EXPECT_FALSE(orders.end_newest());
}

TEST_F(GovernorTest, AnEmergencyThatLastsDropsTheEnginesThoughRequestsRun) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 100;
  at(100_MiB);
  const TimePoint began = clock_.now();
  while (clock_.now() - began < seconds(3) - kTick) {
    ASSERT_FALSE(again().drop_engines());
  }
  EXPECT_TRUE(again().drop_engines());
}

TEST_F(GovernorTest, AtEmergencyAnEngineThatServesNobodyIsDroppedAtOnce) {
  situation_.engines = Engines::kIdle;
  EXPECT_TRUE(at(100_MiB).drop_engines());
  situation_.engines = Engines::kNone;
  EXPECT_FALSE(again().drop_engines()) << "there is none any more";
}

TEST_F(GovernorTest, NothingMoreIsEndedOnceTheReadingIsBetterAndOnlyTheLevelIsHeld) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 5;
  EXPECT_TRUE(at(100_MiB).end_newest());
  for (int i = 0; i < 40; ++i) {
    const Orders orders = held_at(Level::kEmergency, 2_GiB);
    ASSERT_TRUE(orders.refuse());
    ASSERT_FALSE(orders.end_newest() || orders.drop_engines());
  }
}

TEST_F(GovernorTest, AnIdleModelStaysWhereOnlyTheHoldRefuses) {
  at(below(1_GiB));
  situation_.engines = Engines::kIdle;
  EXPECT_FALSE(held_at(Level::kCritical, 1_GiB).unload_idle());
  EXPECT_TRUE(held_at(Level::kEmergency, below(1_GiB)).unload_idle())
      << "better than Emergency, but admission would not return";
}

TEST_F(GovernorTest, NotKnowingRefusesAndSpillsButEndsNothing) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 2;
  situation_.parked = 1_GiB;
  at(8_GiB);
  for (int i = 0; i < 100; ++i) {
    const Orders orders = without_a_reading();
    ASSERT_EQ(orders.rung(), Rung::kRefuse);
    ASSERT_TRUE(orders.spill_caches());
    ASSERT_FALSE(orders.end_newest() || orders.drop_engines() || orders.unload_idle());
  }
  situation_.engines = Engines::kIdle;
  EXPECT_FALSE(again().unload_idle());
  EXPECT_EQ(status().whose, Whose::kUnknown);
}

TEST_F(GovernorTest, ALostReadingDuringAnEmergencyStopsTheEndingButNotTheRefusing) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 5;
  at(100_MiB);
  for (int i = 0; i < 40; ++i) {
    const Orders orders = without_a_reading();
    ASSERT_EQ(orders.rung(), Rung::kEndRunning) << "not knowing does not improve anything";
    ASSERT_FALSE(orders.end_newest() || orders.drop_engines());
  }
  const Orders orders = at(100_MiB);
  EXPECT_TRUE(orders.end_newest());
  EXPECT_FALSE(orders.drop_engines()) << "time without a reading is not time at Emergency";
}

TEST_F(GovernorTest, RefusingEndsWithTheLevelAndTheOtherRungsFollowOneByOne) {
  at(below(1_GiB));
  EXPECT_EQ(at(8_GiB).rung(), Rung::kUnloadIdle) << "no second hold for requests that fit";
  for (const Rung rung : {Rung::kSpillCaches, Rung::kSmallSteps, Rung::kHoldCaches, Rung::kNone}) {
    for (int i = 0; i < 3; ++i) EXPECT_GT(again().rung(), rung);
    EXPECT_EQ(again().rung(), rung) << "a second after the one before";
  }
}

TEST_F(GovernorTest, OnTheWayDownAnIdleModelIsNotUnloadedAnyMore) {
  situation_.engines = Engines::kBusy;
  at(below(1_GiB));
  situation_.engines = Engines::kIdle;
  situation_.idle_for = std::chrono::hours(1);
  const Orders orders = at(8_GiB);
  EXPECT_EQ(orders.rung(), Rung::kUnloadIdle);
  EXPECT_FALSE(orders.unload_idle());
}

TEST_F(GovernorTest, ARelapseStartsTheDescentAnew) {
  at(below(2_GiB));
  for (int i = 0; i < 3; ++i) at(8_GiB);
  EXPECT_EQ(at(below(2_GiB)).rung(), Rung::kSpillCaches) << "its time at Warning is over";
  for (int i = 0; i < 4; ++i) EXPECT_EQ(at(8_GiB).rung(), Rung::kSpillCaches);
  EXPECT_EQ(at(8_GiB).rung(), Rung::kSmallSteps);
}

TEST_F(GovernorTest, ARefusalForLackOfMemorySpillsCachesAtAnyLevel) {
  situation_.parked = 1_GiB;
  EXPECT_FALSE(at(8_GiB).spill_caches());
  situation_.refused_for_memory = true;
  EXPECT_TRUE(at(8_GiB).spill_caches());
  situation_.refused_for_memory = false;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(at(8_GiB).spill_caches());
  EXPECT_FALSE(at(8_GiB).spill_caches());
}

TEST_F(GovernorTest, ThePressureIsOursWhereGivingBackWhatWeHoldReachesTheFloor) {
  situation_.engines = Engines::kBusy;
  situation_.held = 512_MiB;
  at(512_MiB);
  EXPECT_EQ(status().whose, Whose::kOurs) << "exactly the critical floor";
  situation_.held = below(512_MiB);
  at(512_MiB);
  EXPECT_EQ(status().whose, Whose::kOthers);
  situation_.held = Bytes();
  at(below(1_GiB));
  EXPECT_EQ(status().whose, Whose::kOthers) << "we hold nothing";
  situation_.held = 1_GiB;
  at(1_GiB);
  EXPECT_EQ(status().whose, Whose::kOthers) << "it eases: whose it was";
  at(1_GiB);
  EXPECT_EQ(status().whose, Whose::kOurs) << "at Warning its own floor counts";
}

TEST_F(GovernorTest, PressureThatWasOursStaysOursWhileItEases) {
  situation_.held = 1_GiB;
  at(100_MiB);
  situation_.held = Bytes();
  held_at(Level::kEmergency, 4_GiB);
  EXPECT_EQ(status().whose, Whose::kOurs);
  at(4_GiB);
  EXPECT_EQ(status().whose, Whose::kOurs);
  for (int i = 0; i < 40; ++i) at(4_GiB);
  EXPECT_EQ(status().whose, Whose::kNone);
}

TEST_F(GovernorTest, EachRungIsEnteredAndLeftOnce) {
  for (int i = 0; i < 10; ++i) at(below(3_GiB));
  for (int i = 0; i < 10; ++i) at(below(2_GiB));
  for (int i = 0; i < 10; ++i) at(below(1_GiB));
  for (int i = 0; i < 10; ++i) at(100_MiB);
  for (int i = 0; i < 100; ++i) at(8_GiB);
  for (std::size_t i = 1; i < kRungCount; ++i) {
    const Rung rung = static_cast<Rung>(i);
    EXPECT_EQ(entered(rung), 1U) << name(rung);
    EXPECT_EQ(left(rung), 1U) << name(rung);
  }
}

TEST_F(GovernorTest, AMoveIsToldWithTheNumbers) {
  situation_.held = 256_MiB;
  at(768_MiB);
  EXPECT_EQ(describe_move(Rung::kNone, Rung::kRefuse, situation_),
            "memory pressure: refuse (new requests are refused); level Critical, 0.75GB available, "
            "0.25GB held by our workers");
  without_a_reading();
  EXPECT_EQ(describe_move(Rung::kRefuse, Rung::kUnloadIdle, situation_),
            "memory pressure eases: unload_idle (models that serve nobody are unloaded); level "
            "Critical, available memory unknown, 0.25GB held by our workers");
}

TEST_F(GovernorTest, StatusSaysWhatWasDone) {
  situation_.engines = Engines::kBusy;
  situation_.requests_running = 2;
  at(100_MiB);
  governor_.record(Deed::kEndedRequest);
  governor_.record(Deed::kEndedRequest);
  governor_.record(Deed::kUnloadedModel);
  const Governor::Status now = status();
  EXPECT_EQ(now.rung, Rung::kEndRunning);
  EXPECT_EQ(now.done, (std::vector<std::string>{
                          "caches stop growing", "prompts are processed in smaller steps",
                          "prefixes in RAM go to disk and unused KV cells are given back",
                          "models that serve nobody are unloaded", "new requests are refused",
                          "running requests are ended, newest first", "ended 2 requests",
                          "unloaded an idle model 1 time"}));
  EXPECT_EQ(now.deeds.at(static_cast<std::size_t>(Deed::kEndedRequest)), 2U);
  for (int i = 0; i < 100; ++i) at(8_GiB);
  EXPECT_TRUE(status().done.empty());
  EXPECT_EQ(status().deeds.at(static_cast<std::size_t>(Deed::kEndedRequest)), 2U)
      << "counters never go down";
  at(below(3_GiB));
  EXPECT_EQ(status().done, (std::vector<std::string>{"caches stop growing"}));
}

TEST_F(GovernorTest, TheServerStopsOnlyWhereTheUserHasChosenThat) {
  situation_.engines = Engines::kNone;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(at(100_MiB).shut_down());
}

TEST(GovernorShutDown, ComesAfterTheEnginesHadTheirTime) {
  FakeClock clock;
  Governor governor({.shut_down_on_emergency = true});
  Situation situation;
  situation.level = Level::kEmergency;
  situation.available = 100_MiB;
  EXPECT_FALSE(governor.step(situation, clock.now()).shut_down());
  clock.advance(seconds(6) - Duration(1));
  EXPECT_FALSE(governor.step(situation, clock.now()).shut_down());
  clock.advance(Duration(1));
  EXPECT_TRUE(governor.step(situation, clock.now()).shut_down());
  situation.recovering = true;
  situation.available = 4_GiB;
  EXPECT_FALSE(governor.step(situation, clock.now()).shut_down());
}

/// Any situation whatever, also ones that cannot be.
Situation random_situation(std::mt19937& random) {
  const auto below = [&](std::uint64_t n) { return random() % n; };
  Situation situation;
  situation.level = static_cast<Level>(below(5));
  situation.recovering = below(3) == 0;
  if (below(8) != 0) situation.available = Bytes(below(5) << 29);
  situation.held = Bytes(below(3) << 29);
  situation.parked = Bytes(below(2) << 20);
  situation.spare_cells = Bytes(below(2) << 20);
  situation.engines = static_cast<Engines>(below(5));
  situation.idle_for = seconds(below(20));
  situation.requests_running = static_cast<std::uint32_t>(below(4));
  situation.refused_for_memory = below(10) == 0;
  return situation;
}

TEST(GovernorProperty, NoOrderRefusesAndKeepsWhatCouldBeFreedWhateverTheSituation) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    FakeClock clock;
    Governor governor({.shut_down_on_emergency = true});
    for (int step = 0; step < 2000; ++step) {
      clock.advance(milliseconds(random() % 600));
      const Situation situation = random_situation(random);
      const Orders orders = governor.step(situation, clock.now());
      ASSERT_FALSE(is_wedged(situation, orders, Floors())) << "seed " << seed;
      const bool known = situation.available.has_value();
      const bool must_refuse = !known || situation.level >= Level::kCritical;
      ASSERT_EQ(orders.refuse(), must_refuse) << "seed " << seed << ", step " << step;
      const bool ends = orders.end_newest() || orders.drop_engines() || orders.shut_down();
      ASSERT_TRUE(!ends || (known && situation.level == Level::kEmergency));
    }
    const auto total = governor.status(clock.now());
    for (std::size_t i = 1; i < kRungCount; ++i) {
      ASSERT_LE(total.entered.at(i) - total.left.at(i), 1U) << "entered twice without leaving";
    }
  }
}

TEST(GovernorNames, AreThoseOfTheApi) {
  EXPECT_EQ(name(Rung::kNone), "none");
  EXPECT_EQ(name(Rung::kDropEngines), "drop_engines");
  EXPECT_EQ(description(Rung::kDropEngines), "engines are dropped");
  EXPECT_EQ(name(Whose::kNone), "none");
  EXPECT_EQ(name(Whose::kOurs), "ours");
  EXPECT_EQ(name(Whose::kOthers), "others");
  EXPECT_EQ(name(Whose::kUnknown), "unknown");
}

}  // namespace
}  // namespace pensieve::memory
