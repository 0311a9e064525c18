// The promise for KV cells at every step of a resize, and what is granted when.
#include "model/cell_budget.h"

#include <gtest/gtest.h>

namespace pensieve::model {
namespace {

using std::chrono::seconds;
using worker::NeedCells;
using worker::Resize;
using worker::ResizeRefused;

constexpr Bytes kPerCell(64U << 10);  // So that 4,096 cells take 256 MiB.
constexpr Bytes kRest = 512_MiB;      // Weights and all the rest.

Bytes kv_of(std::uint32_t cells) {
  return Bytes(kPerCell.count() * cells);
}
Bytes total_of(std::uint32_t cells) {
  return Bytes(kv_of(cells).count() + kRest.count());
}
Bytes with_copy(std::uint32_t cells, std::uint32_t copied) {
  return Bytes(total_of(cells).count() + kv_of(copied).count());
}
Bytes above(Bytes floor, Bytes more) {
  return Bytes(floor.count() + more.count());
}

engine::Plan plan_of(std::uint32_t cells) {
  engine::Plan plan;
  plan.estimate.kv = kv_of(cells);
  plan.estimate.weights_copied = kRest;
  plan.context_tokens = 16384;
  plan.context_train_tokens = 16384;
  plan.cells = cells;
  plan.resize_copy = kv_of(cells);
  return plan;
}

class CellBudgetTest : public testing::Test {
 protected:
  CellBudgetTest() {
    EXPECT_TRUE(budget_.reserve_first(8_GiB));
    budget_.loaded(4096);
    settle();
  }
  /// All that is promised has become resident.
  void settle() { budget_.reservation().settle(budget_.reserved()); }

  static memory::Monitor::Status memory(Bytes available) {
    memory::Monitor::Status status;
    status.available = available;
    status.total = 16_GiB;
    status.level = memory::level_for(available, memory::Floors());
    return status;
  }
  /// The cells that were granted; 0 for a refusal, whose reason is kept.
  std::uint32_t granted(NeedCells need, const memory::Monitor::Status& status) {
    const CellBudget::Answer answer = budget_.grant(need, status);
    if (const auto* refused = std::get_if<ResizeRefused>(&answer)) reason_ = refused->reason;
    const auto* resize = std::get_if<Resize>(&answer);
    return resize == nullptr ? 0 : resize->cells;
  }
  void resized(std::uint32_t cells, std::uint32_t used = 0) {
    budget_.resized({.cells = cells, .cells_used = used, .dropped_tokens = 0});
    settle();
  }
  void grow_to(std::uint32_t cells) {
    ASSERT_EQ(granted({budget_.cells(), cells}, memory(12_GiB)), cells);
    resized(cells);
  }

  memory::Ledger ledger_;
  CellBudget budget_{ledger_,
                     memory::Floors(),
                     {plan_of(4096), plan_of(8192), plan_of(16384), plan_of(32768)},
                     16384};
  std::string reason_;
  TimePoint now_{};
};

TEST_F(CellBudgetTest, ALoadPromisesTheFirstRungAlone) {
  EXPECT_EQ(budget_.reserved(), total_of(4096));
  EXPECT_EQ(ledger_.promised(), total_of(4096));
  EXPECT_EQ(budget_.cells_max(), 32768U);
}

TEST_F(CellBudgetTest, AGrantPromisesTheRungAndTheCopyAndTheCopyGoesBackAfterwards) {
  EXPECT_EQ(granted({4096, 5000}, memory(8_GiB)), 8192U) << "the smallest rung that is enough";
  EXPECT_EQ(ledger_.promised(), with_copy(8192, 4096)) << "while it is under way";
  resized(8192);
  EXPECT_EQ(ledger_.promised(), total_of(8192));
  EXPECT_EQ(budget_.cells(), 8192U);
}

TEST_F(CellBudgetTest, OneStepMayTakeSeveralRungs) {
  EXPECT_EQ(granted({4096, 16384}, memory(8_GiB)), 16384U);
}

TEST_F(CellBudgetTest, WhatDoesNotFitWholeIsGrantedAsFarAsItGoes) {
  const Bytes needed = saturating_sub(with_copy(8192, 4096), total_of(4096));
  EXPECT_EQ(granted({4096, 16384}, memory(above(1_GiB, needed))), 8192U) << "exactly";
}

TEST_F(CellBudgetTest, OneByteLessIsRefusedWithTheNumbersAndPromisesNothing) {
  const Bytes needed = saturating_sub(with_copy(8192, 4096), total_of(4096));
  const Bytes available = saturating_sub(above(1_GiB, needed), Bytes(1));
  EXPECT_EQ(granted({4096, 8192}, memory(available)), 0U);
  EXPECT_NE(reason_.find("a KV cache of 8192 cells does not fit: needs 0.50GB"), std::string::npos)
      << reason_;
  EXPECT_EQ(ledger_.promised(), total_of(4096));
  EXPECT_EQ(granted({4096, 8192}, memory(8_GiB)), 8192U) << "a refusal is not for ever";
}

TEST_F(CellBudgetTest, CellsAboveTheWindowComeOnlyOutOfWhatIsAboveTheCautionFloor) {
  grow_to(16384);
  const Bytes needed = saturating_sub(with_copy(32768, 16384), total_of(16384));
  EXPECT_EQ(granted({16384, 20000}, memory(saturating_sub(above(3_GiB, needed), Bytes(1)))), 0U);
  EXPECT_EQ(granted({16384, 20000}, memory(above(3_GiB, needed))), 32768U);
}

TEST_F(CellBudgetTest, TheMostCellsAreTheMost) {
  grow_to(32768);
  EXPECT_EQ(granted({32768, 40000}, memory(15_GiB)), 0U);
  EXPECT_NE(reason_.find("most cells already, 32768"), std::string::npos) << reason_;
}

TEST_F(CellBudgetTest, AtCriticalAndWithoutAReadingNothingIsGranted) {
  memory::Monitor::Status held = memory(8_GiB);
  held.level = memory::Level::kCritical;
  EXPECT_EQ(granted({4096, 8192}, held), 0U);
  held.available.reset();
  EXPECT_EQ(granted({4096, 8192}, held), 0U);
  EXPECT_NE(reason_.find("cannot be read"), std::string::npos) << reason_;
}

TEST_F(CellBudgetTest, WhatIsAskedDuringAResizeGetsNoAnswer) {
  EXPECT_EQ(granted({4096, 8192}, memory(8_GiB)), 8192U);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(budget_.grant({4096, 16384}, memory(8_GiB))));
  EXPECT_EQ(budget_.shrink(0, true, memory(8_GiB), now_), std::nullopt);
  EXPECT_EQ(ledger_.promised(), with_copy(8192, 4096));
}

TEST_F(CellBudgetTest, AWorkerThatGotLessThanItMightHaveGivesTheRestBack) {
  EXPECT_EQ(granted({4096, 16384}, memory(8_GiB)), 16384U);
  resized(4096);  // Its allocation failed.
  EXPECT_EQ(ledger_.promised(), total_of(4096));
  EXPECT_EQ(granted({4096, 8192}, memory(8_GiB)), 8192U) << "and may ask again";
}

TEST_F(CellBudgetTest, ShrinkingPromisesTheCopyAndGivesBackOnlyAfterTheWorkerHasDone) {
  grow_to(16384);
  const auto resize = budget_.shrink(1000, false, memory(1536_MiB), now_);
  ASSERT_TRUE(resize);
  EXPECT_EQ(resize->cells, 4096U);
  EXPECT_EQ(ledger_.promised(), with_copy(16384, 4096));
  resized(4096, 1000);
  EXPECT_EQ(ledger_.promised(), total_of(4096));
}

TEST_F(CellBudgetTest, WhatIsUsedStaysUnlessItIsAskedFor) {
  grow_to(16384);
  EXPECT_EQ(budget_.shrink(8000, false, memory(8_GiB), now_), std::nullopt)
      << "with room to grow it needs this rung";
  EXPECT_EQ(budget_.shrink(7000, false, memory(8_GiB), now_)->cells, 8192U);
  resized(8192, 7000);
  now_ += CellBudget::kShrinkEvery;
  EXPECT_EQ(budget_.shrink(7000, false, memory(8_GiB), now_), std::nullopt);
  EXPECT_EQ(budget_.shrink(7000, true, memory(8_GiB), now_)->cells, 4096U);
}

TEST_F(CellBudgetTest, TheCopyOfAShrinkMayGoBelowTheCriticalFloorButNotBelowTheEmergencyFloor) {
  grow_to(16384);
  const Bytes copy = kv_of(4096);
  EXPECT_FALSE(
      budget_.shrink(4000, true, memory(saturating_sub(above(512_MiB, copy), Bytes(1))), now_));
  EXPECT_EQ(ledger_.promised(), total_of(16384));
  EXPECT_TRUE(budget_.shrink(4000, true, memory(above(512_MiB, copy)), now_));
}

TEST_F(CellBudgetTest, CellsThatNobodyUsesNeedNoCopyAndNoReading) {
  grow_to(16384);
  memory::Monitor::Status unknown;
  EXPECT_EQ(budget_.shrink(1, false, unknown, now_), std::nullopt);
  EXPECT_TRUE(budget_.shrink(0, false, unknown, now_));
}

TEST_F(CellBudgetTest, AWorkerIsNotStoppedForShrinkingAllTheTime) {
  grow_to(16384);
  ASSERT_TRUE(budget_.shrink(0, true, memory(8_GiB), now_));
  resized(8192, 7000);
  now_ += CellBudget::kShrinkEvery - Duration(1);
  EXPECT_FALSE(budget_.shrink(0, true, memory(8_GiB), now_));
  now_ += Duration(1);
  EXPECT_TRUE(budget_.shrink(0, true, memory(8_GiB), now_));
}

TEST_F(CellBudgetTest, SpareIsWhatTheCellsAboveTheUsedRungTake) {
  grow_to(16384);
  EXPECT_EQ(budget_.spare(0), saturating_sub(kv_of(16384), kv_of(4096)));
  EXPECT_EQ(budget_.spare(5000), saturating_sub(kv_of(16384), kv_of(8192)));
  EXPECT_EQ(budget_.spare(16384), Bytes());
}

TEST_F(CellBudgetTest, TheNextRungTakesItsDifferenceAndTheCopy) {
  EXPECT_EQ(budget_.next_rung_takes(), saturating_sub(with_copy(8192, 4096), total_of(4096)));
  grow_to(32768);
  EXPECT_EQ(budget_.next_rung_takes(), Bytes()) << "there is none";
}

TEST(CellBudget, AllIsGivenBackWithTheBudget) {
  memory::Ledger ledger;
  {
    CellBudget budget(ledger, memory::Floors(), {plan_of(4096)}, 4096);
    EXPECT_TRUE(budget.reserve_first(8_GiB));
    EXPECT_GT(ledger.promised(), Bytes());
  }
  EXPECT_EQ(ledger.promised(), Bytes());
}

TEST(CellBudget, AFirstRungThatDoesNotFitPromisesNothing) {
  memory::Ledger ledger;
  CellBudget budget(ledger, memory::Floors(), {plan_of(4096)}, 4096);
  const auto refused = budget.reserve_first(saturating_sub(above(1_GiB, total_of(4096)), Bytes(1)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().needed, total_of(4096));
  EXPECT_EQ(ledger.promised(), Bytes());
}

}  // namespace
}  // namespace pensieve::model
