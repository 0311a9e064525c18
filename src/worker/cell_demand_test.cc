#include "worker/cell_demand.h"

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr TimePoint at(Duration since_start) {
  return TimePoint(since_start);
}

TEST(CellDemandTest, AsksOnlyForMoreThanThereIs) {
  CellDemand demand;
  EXPECT_FALSE(demand.question(100, 100, at(seconds(0))));
  const auto need = demand.question(100, 101, at(seconds(0)));
  ASSERT_TRUE(need);
  EXPECT_EQ(need->cells_now, 100U);
  EXPECT_EQ(need->cells_wanted, 101U);
  EXPECT_EQ(demand.question(0, UINT64_MAX, at(seconds(5)))->cells_wanted, UINT32_MAX);
}

TEST(CellDemandTest, AsksAgainAfterASecondAndNotBefore) {
  CellDemand demand;
  ASSERT_TRUE(demand.question(100, 200, at(seconds(0))));
  EXPECT_FALSE(demand.question(100, 300, at(milliseconds(999))));
  EXPECT_TRUE(demand.question(100, 300, at(milliseconds(1000))));
  demand.refused({});
  EXPECT_FALSE(demand.question(100, 300, at(milliseconds(1999)))) << "a no changes nothing";
  EXPECT_TRUE(demand.question(100, 300, at(milliseconds(2000))));
}

TEST(CellDemandTest, AfterAGrantTheNextQuestionMayGoAtOnceButNotAfterAGrantThatFailed) {
  CellDemand demand;
  ASSERT_TRUE(demand.question(100, 200, at(seconds(0))));
  demand.answered(true);
  EXPECT_TRUE(demand.question(200, 201, at(seconds(0))));
  demand.answered(false);
  EXPECT_FALSE(demand.question(200, 201, at(milliseconds(999))));
}

TEST(CellDemandTest, WaitsForAnAnswerForASecond) {
  CellDemand demand;
  EXPECT_FALSE(demand.awaits_answer(at(seconds(0))));
  ASSERT_TRUE(demand.question(100, 200, at(seconds(0))));
  EXPECT_TRUE(demand.awaits_answer(at(milliseconds(999))));
  EXPECT_FALSE(demand.awaits_answer(at(milliseconds(1000)))) << "this gateway says nothing";
  ASSERT_TRUE(demand.question(100, 200, at(seconds(1))));
  EXPECT_FALSE(demand.awaits_answer(at(seconds(1)))) << "and asking again does not change that";
  demand.refused({});
  ASSERT_TRUE(demand.question(100, 200, at(seconds(2))));
  EXPECT_TRUE(demand.awaits_answer(at(seconds(2)))) << "it has spoken";
  demand.refused({});
  EXPECT_FALSE(demand.awaits_answer(at(seconds(2))));
}

TEST(CellDemandTest, KeepsTheLastNoUntilCellsCome) {
  CellDemand demand;
  EXPECT_FALSE(demand.refusal());
  demand.refused({memory::Level::kWarning, 1_GiB, "first"});
  demand.refused({memory::Level::kCritical, 700_MiB, "second"});
  demand.answered(false);
  ASSERT_TRUE(demand.refusal());
  EXPECT_EQ(demand.refusal()->reason, "second");
  demand.answered(true);
  EXPECT_FALSE(demand.refusal());
}

}  // namespace
}  // namespace pensieve::worker
