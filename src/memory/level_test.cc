#include "memory/level.h"

#include <type_traits>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

using std::chrono::seconds;

constexpr Bytes kOne(1);
Bytes above(Bytes bytes) {
  return Bytes(bytes.count() + 1);
}
Bytes below(Bytes bytes) {
  return saturating_sub(bytes, kOne);
}

TEST(LevelTest, EachFloorIsOnItsGoodSideAndOneByteLessIsNot) {
  const Floors floors;
  struct Boundary {
    Bytes floor;
    Level at_floor;
    Level below_floor;
  };
  const Boundary boundaries[] = {
      {3_GiB, Level::kSafe, Level::kCaution},
      {2_GiB, Level::kCaution, Level::kWarning},
      {1_GiB, Level::kWarning, Level::kCritical},
      {512_MiB, Level::kCritical, Level::kEmergency},
  };
  for (const Boundary& boundary : boundaries) {
    EXPECT_EQ(level_for(above(boundary.floor), floors), boundary.at_floor);
    EXPECT_EQ(level_for(boundary.floor, floors), boundary.at_floor);
    EXPECT_EQ(level_for(below(boundary.floor), floors), boundary.below_floor);
  }
}

TEST(LevelTest, NothingAvailableIsAnEmergencyAndPlentyIsSafe) {
  EXPECT_EQ(level_for(Bytes(), Floors()), Level::kEmergency);
  EXPECT_EQ(level_for(Bytes(UINT64_MAX), Floors()), Level::kSafe);
}

TEST(LevelTest, ALevelIsAPlainCopyableValueWithAPrintableName) {
  static_assert(std::is_trivially_copyable_v<Level>);
  const Level original = Level::kWarning;
  const Level copy = original;
  EXPECT_EQ(copy, original);
  EXPECT_EQ(name(Level::kSafe), "Safe");
  EXPECT_EQ(name(Level::kCaution), "Caution");
  EXPECT_EQ(name(Level::kWarning), "Warning");
  EXPECT_EQ(name(Level::kCritical), "Critical");
  EXPECT_EQ(name(Level::kEmergency), "Emergency");
}

TEST(LevelTest, ALaterLevelIsTheWorseOne) {
  EXPECT_GT(Level::kEmergency, Level::kCritical);
  EXPECT_GT(Level::kCritical, Level::kWarning);
  EXPECT_GT(Level::kWarning, Level::kCaution);
  EXPECT_GT(Level::kCaution, Level::kSafe);
}

TEST(LevelTest, FloorsAreConfigurable) {
  const Floors small{
      .caution = 400_MiB, .warning = 300_MiB, .critical = 200_MiB, .emergency = 100_MiB};
  ASSERT_TRUE(small.ordered());
  EXPECT_EQ(level_for(400_MiB, small), Level::kSafe);
  EXPECT_EQ(level_for(300_MiB, small), Level::kCaution);
  EXPECT_EQ(level_for(200_MiB, small), Level::kWarning);
  EXPECT_EQ(level_for(100_MiB, small), Level::kCritical);
  EXPECT_EQ(level_for(below(100_MiB), small), Level::kEmergency);
}

TEST(LevelTest, FloorsThatDoNotFallFromCautionToEmergencyAreNotOrdered) {
  EXPECT_TRUE(Floors().ordered());
  EXPECT_FALSE((Floors{.caution = 2_GiB}.ordered())) << "equal to warning";
  EXPECT_FALSE((Floors{.warning = 1_GiB}.ordered())) << "equal to critical";
  EXPECT_FALSE((Floors{.critical = 512_MiB}.ordered())) << "equal to emergency";
  EXPECT_FALSE((Floors{.emergency = 4_GiB}.ordered()));
}

TEST(LevelTrackerTest, TheFirstMeasurementCountsAtOnceWhateverItIs) {
  for (const Level first :
       {Level::kSafe, Level::kCaution, Level::kWarning, Level::kCritical, Level::kEmergency}) {
    LevelTracker tracker(seconds(10));
    tracker.observe(first, TimePoint());
    EXPECT_EQ(tracker.level(), first);
  }
}

TEST(LevelTrackerTest, RecoversExactlyAtTheEndOfTheHoldAndNotOneTickBefore) {
  LevelTracker tracker(seconds(10));
  const TimePoint start;
  tracker.observe(Level::kCritical, start);
  tracker.observe(Level::kSafe, start);
  tracker.observe(Level::kSafe, start + seconds(10) - Duration(1));
  EXPECT_EQ(tracker.level(), Level::kCritical);
  tracker.observe(Level::kSafe, start + seconds(10));
  EXPECT_EQ(tracker.level(), Level::kSafe);
}

TEST(LevelTrackerTest, ARelapseStartsTheHoldAnew) {
  LevelTracker tracker(seconds(10));
  const TimePoint start;
  tracker.observe(Level::kCritical, start);
  tracker.observe(Level::kSafe, start + seconds(1));
  tracker.observe(Level::kCritical, start + seconds(10));
  tracker.observe(Level::kSafe, start + seconds(11));
  tracker.observe(Level::kSafe, start + seconds(20));
  EXPECT_EQ(tracker.level(), Level::kCritical);
  tracker.observe(Level::kSafe, start + seconds(21));
  EXPECT_EQ(tracker.level(), Level::kSafe);
}

TEST(LevelTrackerTest, ReliefInTwoStepsCostsOneHold) {
  LevelTracker tracker(seconds(10));
  const TimePoint start;
  tracker.observe(Level::kEmergency, start);
  tracker.observe(Level::kCritical, start + seconds(1));
  tracker.observe(Level::kSafe, start + seconds(2));
  tracker.observe(Level::kSafe, start + seconds(11));
  EXPECT_EQ(tracker.level(), Level::kCritical);
  tracker.observe(Level::kSafe, start + seconds(12) - Duration(1));
  EXPECT_EQ(tracker.level(), Level::kCritical);
  tracker.observe(Level::kSafe, start + seconds(12));
  EXPECT_EQ(tracker.level(), Level::kSafe);
}

TEST(LevelTrackerTest, RecoversNoFurtherThanTheWorstMeasurementOfTheHold) {
  LevelTracker tracker(seconds(10));
  const TimePoint start;
  tracker.observe(Level::kEmergency, start);
  tracker.observe(Level::kSafe, start + seconds(1));
  tracker.observe(Level::kWarning, start + seconds(8));
  tracker.observe(Level::kSafe, start + seconds(11));
  EXPECT_EQ(tracker.level(), Level::kWarning);
  tracker.observe(Level::kSafe, start + seconds(20));
  EXPECT_EQ(tracker.level(), Level::kWarning);
  tracker.observe(Level::kSafe, start + seconds(21));
  EXPECT_EQ(tracker.level(), Level::kSafe);
}

TEST(LevelTrackerTest, TimeWithoutMeasurementsDoesNotCountTowardsTheHold) {
  LevelTracker tracker(seconds(10));
  const TimePoint start;
  tracker.observe(Level::kCritical, start);
  tracker.observe(Level::kSafe, start + seconds(1));
  tracker.observe_unknown();
  tracker.observe(Level::kSafe, start + seconds(12));
  EXPECT_EQ(tracker.level(), Level::kCritical);
  tracker.observe(Level::kSafe, start + seconds(22));
  EXPECT_EQ(tracker.level(), Level::kSafe);
}

}  // namespace
}  // namespace pensieve::memory
