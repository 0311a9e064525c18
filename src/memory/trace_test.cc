// Whole incidents through the production policy. Each expectation is the answer that is right;
// where one is surprising, the reason stands with it.
#include "memory/testing/trace.h"

#include <filesystem>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

const std::set<std::string> kTraces = {
    "sudden-hog",   "slow-leak", "page-cache-flood", "limit-lowered", "others-pressure",
    "desktop-leak", "sawtooth",  "reading-lost",     "swap-storm",    "own-thrash"};

Trace trace(const std::string& name) {
  return read_trace(std::string(PENSIEVE_TRACES) + "/" + name + ".csv");
}

TEST(TraceTest, EveryTraceOfTheFolderHasAnAnswerHere) {
  std::set<std::string> found;
  for (const auto& file : std::filesystem::directory_iterator(PENSIEVE_TRACES)) {
    if (file.path().extension() == ".csv") found.insert(file.path().stem());
  }
  EXPECT_EQ(found, kTraces);
}

TEST(TraceTest, InNoneOfThemTheGovernorRefusesWhatItCouldFree) {
  for (const std::string& name : kTraces) EXPECT_EQ(replay(trace(name)).wedged, "") << name;
}

TEST(TraceTest, ASuddenHogIsRefusedAtOnceAndForgottenASecondAfterItIsGone) {
  const Replay now = replay(trace("sudden-hog"));
  EXPECT_EQ(now.levels, "0 Safe, 6.252 Caution, 6.5 Warning, 7.004 Critical, 13.5 Safe");
  EXPECT_EQ(now.refusals, "7.004-13.251");
  EXPECT_EQ(now.alerts, "") << "a program that starts is a step";
  EXPECT_EQ(now.worsened, "");
}

TEST(TraceTest, ASlowLeakIsForetoldHalfAMinuteAhead) {
  const Replay now = replay(trace("slow-leak"));
  EXPECT_EQ(now.levels,
            "0 Safe, 41.75 Caution, 52.75 Warning, 63.5 Critical, 69 Emergency, 72.25 Safe");
  EXPECT_EQ(now.refusals, "63.5-72");
  EXPECT_GE(now.critical_at - now.alert_at, 30);
  EXPECT_EQ(now.alerts.find(','), std::string::npos) << "one alert: " << now.alerts;
}

TEST(TraceTest, PageCacheThatFillsAGroupIsNoPressure) {
  const Trace flood = trace("page-cache-flood");
  const Replay now = replay(flood);
  EXPECT_EQ(now.levels, "0 Safe");
  EXPECT_EQ(now.refusals, "");
  EXPECT_EQ(now.alerts, "");
  EXPECT_GT(flood.rows.back().signals.events->value().max, 1000U) << "the limit was reached often";
  // Not even where the group is at Warning: a limit that only cache reaches says nothing.
  Trace tight = flood;
  tight.floors = {Bytes(1200ULL << 20), Bytes(1100ULL << 20), 400_MiB, 200_MiB};
  EXPECT_EQ(replay(tight).levels, "0 Warning");
}

TEST(TraceTest, ALimitThatIsLoweredIsFollowedWithinOneReading) {
  const Replay now = replay(trace("limit-lowered"));
  EXPECT_EQ(now.levels, "0 Safe, 6.25 Critical, 13.25 Safe");
  EXPECT_EQ(now.refusals, "6.25-13");
  EXPECT_EQ(now.alerts, "") << "a lowered limit is a step";
}

TEST(TraceTest, PressureOfAnotherGroupRefusesNobody) {
  const Trace others = trace("others-pressure");
  const Replay now = replay(others);
  EXPECT_EQ(now.levels, "0 Warning");
  EXPECT_EQ(now.refusals, "");
  // The same stalls would refuse if they were ours: the trace is loud enough to prove something.
  Trace ours = others;
  for (TraceRow& row : ours.rows) row.signals.pressure->value().scope = Scope::kOwn;
  EXPECT_NE(replay(ours).refusals, "");
}

TEST(TraceTest, ALeakOnADesktopIsForetoldUnderNoise) {
  const Replay now = replay(trace("desktop-leak"));
  EXPECT_EQ(now.levels, "0 Safe, 130.5 Caution, 155 Warning, 180.5 Critical, 193 Emergency");
  EXPECT_EQ(now.refusals, "180.5-199.5");
  EXPECT_GE(now.critical_at - now.alert_at, 60);
  EXPECT_EQ(now.alerts.find(','), std::string::npos) << "one alert: " << now.alerts;
}

TEST(TraceTest, ASawtoothNeitherAlertsNorRefuses) {
  const Replay now = replay(trace("sawtooth"));
  EXPECT_EQ(now.alerts, "");
  EXPECT_EQ(now.refusals, "");
}

TEST(TraceTest, ALostReadingRefusesWhenItIsTooOldAndNotBefore) {
  const Replay now = replay(trace("reading-lost"));
  // Lost from 10 s on; the last good reading, of 9.75 s, may be 3 s old. At 20 s only 1 s is lost.
  EXPECT_EQ(now.levels, "0 Safe, 13 Critical, 16 Safe");
  EXPECT_EQ(now.refusals, "13-15.75");
  EXPECT_EQ(now.alerts, "");
}

TEST(TraceTest, ASwapStormOfTheMachineRefusesOnlyWhileItRages) {
  const Replay now = replay(trace("swap-storm"));
  // PSI's average needs 3 s to say 10 %; after the storm the last 2 s are quiet by 42 s, and the
  // hold is a second. At Caution afterwards nothing of it is left.
  EXPECT_EQ(now.levels, "0 Safe, 10 Warning, 13.25 Critical, 41 Warning, 44.5 Caution");
  EXPECT_EQ(now.refusals, "13.25-40.75");
}

TEST(TraceTest, OurOwnThrashingCountsAlthoughMemoryLooksAvailable) {
  const Replay now = replay(trace("own-thrash"));
  // 2.5 GiB are available all the time: Caution. Stalls of 10 % make it Warning, of 40 % Critical.
  EXPECT_EQ(now.levels, "0 Caution, 12 Warning, 22.75 Critical, 31.5 Warning, 32.5 Caution");
  EXPECT_EQ(now.refusals, "22.75-31.25");
  EXPECT_EQ(now.worsened, "12-31.25");
}

TEST(TraceTest, WhereSignalsCannotBeReadTheyCountAsPressureBelowSafe) {
  Trace blind = trace("own-thrash");
  for (TraceRow& row : blind.rows) row.signals.pressure = fail(Code::kUnavailable, "injected");
  EXPECT_EQ(replay(blind).levels, "0 Warning");
  for (TraceRow& row : blind.rows) row.signals.pressure = std::nullopt;
  EXPECT_EQ(replay(blind).levels, "0 Caution") << "a kernel without PSI";
}

}  // namespace
}  // namespace pensieve::memory
