#include "memory/history.h"

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TimePoint at(Duration since_start) {
  return TimePoint(std::chrono::hours(5)) + since_start;
}

TEST(HistoryTest, AStepHasLeastMeanMostAndTheWorstLevel) {
  HistoryRing ring(seconds(1), 10);
  ring.record(4_GiB, Level::kSafe, 1_GiB, at(seconds(0)));
  ring.record(1_GiB, Level::kWarning, 2_GiB, at(milliseconds(500)));
  ring.record(4_GiB, Level::kSafe, 3_GiB, at(milliseconds(999)));
  const auto entries = ring.entries();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0]->available_min, 1_GiB);
  EXPECT_EQ(entries[0]->available_avg, 3_GiB);
  EXPECT_EQ(entries[0]->available_max, 4_GiB);
  EXPECT_EQ(entries[0]->held, 3_GiB);
  EXPECT_EQ(entries[0]->level, Level::kWarning);
}

TEST(HistoryTest, ANewStepStartsAtItsFirstInstant) {
  HistoryRing ring(seconds(1), 10);
  ring.record(4_GiB, Level::kSafe, Bytes(), at(seconds(0)));
  ring.record(2_GiB, Level::kCaution, Bytes(), at(seconds(1)));
  const auto entries = ring.entries();
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0]->available_max, 4_GiB);
  EXPECT_EQ(entries[1]->available_max, 2_GiB);
  EXPECT_EQ(entries[1]->level, Level::kCaution);
}

TEST(HistoryTest, TimeWithoutAReadingIsUnknownAndNotZero) {
  HistoryRing ring(seconds(1), 10);
  ring.record(4_GiB, Level::kSafe, Bytes(), at(seconds(0)));
  ring.record(std::nullopt, Level::kCritical, Bytes(), at(seconds(1)));
  ring.record(3_GiB, Level::kSafe, Bytes(), at(seconds(4)));
  const auto entries = ring.entries();
  ASSERT_EQ(entries.size(), 5U);
  EXPECT_TRUE(entries[0].has_value());
  for (const std::size_t second : {1, 2, 3}) EXPECT_FALSE(entries[second].has_value()) << second;
  EXPECT_EQ(entries[4]->available_min, 3_GiB);
}

TEST(HistoryTest, OnlyTheLastStepsAreKept) {
  HistoryRing ring(seconds(1), 3);
  for (std::uint64_t second = 0; second < 7; ++second) {
    ring.record(Bytes((second + 1) << 30), Level::kSafe, Bytes(),
                at(seconds(static_cast<int>(second))));
  }
  const auto entries = ring.entries();
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0]->available_min, 5_GiB);
  EXPECT_EQ(entries[2]->available_min, 7_GiB);
}

TEST(HistoryTest, ALongSleepLeavesNothingOld) {
  HistoryRing ring(seconds(1), 3);
  for (int second = 0; second < 3; ++second) {
    ring.record(4_GiB, Level::kSafe, Bytes(), at(seconds(second)));
  }
  ring.record(2_GiB, Level::kCaution, Bytes(), at(std::chrono::hours(1000)));
  const auto entries = ring.entries();
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_FALSE(entries[0].has_value());
  EXPECT_FALSE(entries[1].has_value());
  EXPECT_EQ(entries[2]->available_min, 2_GiB);
}

TEST(HistoryTest, HugeFiguresAreCappedAndSmallOnesRoundedDown) {
  HistoryRing ring(seconds(1), 2);
  ring.record(Bytes(UINT64_MAX), Level::kSafe, Bytes(65535), at(seconds(0)));
  EXPECT_EQ(ring.entries()[0]->available_min, Bytes(static_cast<std::uint64_t>(UINT32_MAX) << 16));
  EXPECT_EQ(ring.entries()[0]->held, Bytes());
}

TEST(HistoryTest, ADayOfSamplesFillsBothRings) {
  History history;
  EXPECT_TRUE(history.hour().entries().empty());
  for (int second = 0; second <= 25 * 3600; ++second) {
    history.record(4_GiB, Level::kSafe, Bytes(), at(seconds(second)));
  }
  EXPECT_EQ(history.hour().entries().size(), 3600U);
  EXPECT_EQ(history.day().entries().size(), 1440U);
  EXPECT_EQ(history.day().step(), minutes(1));
}

}  // namespace
}  // namespace pensieve::memory
