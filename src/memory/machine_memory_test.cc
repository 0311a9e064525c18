#include "memory/machine_memory.h"

#include <utility>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

/// Says always the same.
class FixedMeter final : public Meter {
 public:
  explicit FixedMeter(Result<std::optional<Reading>> says) : says_(std::move(says)) {}
  Result<std::optional<Reading>> read() override { return says_; }

 private:
  Result<std::optional<Reading>> says_;
};

template <class... Says>
SmallestOf smallest_of(Says... says) {
  std::vector<std::unique_ptr<Meter>> meters;
  (meters.push_back(std::make_unique<FixedMeter>(std::move(says))), ...);
  return SmallestOf(std::move(meters));
}

const Reading kMachine{8_GiB, 16_GiB, "machine"};
const Reading kGroup{1_GiB, 2_GiB, "cgroup /a"};
const auto kFails = fail(Code::kUnavailable, "injected: meter broken");

TEST(SmallestOfTest, TheMeterWithTheLeastAvailableIsTheReading) {
  for (auto meters : {std::pair(kMachine, kGroup), std::pair(kGroup, kMachine)}) {
    SmallestOf source = smallest_of(meters.first, meters.second);
    const Result<Reading> reading = source.read();
    ASSERT_TRUE(reading.has_value());
    EXPECT_EQ(reading->available, 1_GiB);
    EXPECT_EQ(reading->total, 2_GiB);
    EXPECT_EQ(reading->limited_by, "cgroup /a");
  }
}

TEST(SmallestOfTest, AMeterWithoutALimitDoesNotConstrain) {
  SmallestOf source = smallest_of(std::nullopt, kMachine, std::nullopt);
  EXPECT_EQ(source.read()->available, 8_GiB);
}

TEST(SmallestOfTest, AnyMeterThatFailsMakesTheReadingFail) {
  SmallestOf first = smallest_of(kFails, kMachine);
  EXPECT_EQ(first.read().error().message, "injected: meter broken");
  SmallestOf last = smallest_of(kMachine, kFails);
  EXPECT_EQ(last.read().error().message, "injected: meter broken");
}

TEST(SmallestOfTest, NoLimitAnywhereIsAnErrorAndNotUnlimited) {
  SmallestOf unlimited = smallest_of(std::nullopt);
  EXPECT_FALSE(unlimited.read().has_value());
  SmallestOf empty = smallest_of();
  EXPECT_FALSE(empty.read().has_value());
}

TEST(MachineMemoryTest, AvailableMemoryIsPositiveOnThisMachine) {
  const Result<std::unique_ptr<MemorySource>> source = open_machine_memory();
  ASSERT_TRUE(source.has_value()) << source.error().message;
  for (int look = 0; look < 3; ++look) {
    const Result<Reading> reading = (*source)->read();
    ASSERT_TRUE(reading.has_value()) << reading.error().message;
    EXPECT_GT(reading->available, Bytes());
    EXPECT_LE(reading->available, reading->total);
    EXPECT_NE(reading->limited_by, "");
  }
}

}  // namespace
}  // namespace pensieve::memory
