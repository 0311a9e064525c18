#include "model/reconcile.h"

#include <string>

#include <gtest/gtest.h>

#include "worker/testing/temp_folder.h"

namespace pensieve::model {
namespace {

engine::MemoryEstimate estimate() {
  return {.weights_mapped = 1_GiB,
          .weights_copied = Bytes(),
          .kv = 200_MiB,
          .compute = 50_MiB,
          .process = 50_MiB};
}

class ReconcilerTest : public testing::Test {
 protected:
  ReconcilerTest() { begin(); }
  /// A worker for which all of the estimate is reserved.
  void begin() {
    reconciler.set_key("m");
    const engine::MemoryEstimate corrected = reconciler.correct(estimate());
    reservation.emplace(ledger.book(corrected.total()));
    reconciler.begin("worker 1", corrected.weights_mapped);
  }
  void end() {
    reconciler.end();
    reservation.reset();
  }
  void tick(Bytes anonymous, std::uint32_t used_cells = 0) {
    reconciler.tick(*reservation, {.resident = Bytes(anonymous.count() + (1_GiB).count()),
                                   .anonymous = anonymous,
                                   .used_cells = used_cells,
                                   .cells = 1000});
  }
  Drift drift() const { return reconciler.status().drift; }

  worker::TempFolder folder_;
  memory::Ledger ledger;
  Reconciler reconciler{ledger, folder_.at("estimates.json")};
  std::optional<memory::Reservation> reservation;
};

TEST_F(ReconcilerTest, MappedWeightsStayOwedWhateverIsResident) {
  tick(300_MiB);
  EXPECT_EQ(ledger.outstanding(), 1_GiB);
  tick(100_MiB);
  EXPECT_EQ(ledger.outstanding(), Bytes((1_GiB).count() + (200_MiB).count()));
}

TEST_F(ReconcilerTest, WhatIsTakenAboveIsPromisedAndMakesNoRoomForOthers) {
  tick(310_MiB);
  EXPECT_EQ(ledger.promised(), Bytes((1_GiB).count() + (310_MiB).count()));
  EXPECT_EQ(ledger.outstanding(), 1_GiB);
  EXPECT_EQ(reconciler.status().excess, 10_MiB);
  tick(500_MiB);
  EXPECT_EQ(ledger.promised(), Bytes((1_GiB).count() + (500_MiB).count()));
  EXPECT_EQ(ledger.outstanding(), 1_GiB);
  tick(300_MiB);
  EXPECT_EQ(ledger.promised(), estimate().total());
}

TEST_F(ReconcilerTest, TheEndGivesBackTheExcess) {
  tick(500_MiB);
  end();
  EXPECT_EQ(ledger.promised(), Bytes());
  EXPECT_EQ(reconciler.status().excess, Bytes());
}

TEST_F(ReconcilerTest, NothingMeasuredIsNotNothingTaken) {
  tick(200_MiB);
  tick(Bytes());
  EXPECT_EQ(reservation->resident(), 200_MiB);
}

TEST_F(ReconcilerTest, DriftBeginsBeyondTheBoundAndEndsWithTheExcess) {
  EXPECT_EQ(drift(), Drift::kUnknown);
  tick(316_MiB);
  EXPECT_EQ(drift(), Drift::kWithin);
  tick(Bytes((316_MiB).count() + 1));
  EXPECT_EQ(drift(), Drift::kAbove);
  tick(301_MiB);
  EXPECT_EQ(drift(), Drift::kAbove);
  tick(300_MiB);
  EXPECT_EQ(drift(), Drift::kWithin);
  EXPECT_EQ(reconciler.status().drifts, 1U);
}

TEST_F(ReconcilerTest, FarBelowCountsOnlyOnceTheCacheWasFull) {
  tick(70_MiB, 899);
  EXPECT_EQ(drift(), Drift::kWithin);
  tick(75_MiB, 900);
  EXPECT_EQ(drift(), Drift::kWithin) << "a quarter is not far below";
  tick(74_MiB, 100);
  EXPECT_EQ(drift(), Drift::kBelow);
}

TEST_F(ReconcilerTest, AReservationThatGrewCoversWhatWasAbove) {
  tick(400_MiB);
  EXPECT_EQ(drift(), Drift::kAbove);
  reservation->absorb(ledger.book(200_MiB));
  tick(400_MiB);
  EXPECT_EQ(drift(), Drift::kWithin);
  EXPECT_EQ(ledger.promised(), Bytes((1_GiB).count() + (500_MiB).count()));
}

TEST_F(ReconcilerTest, TheNextWorkerIsReservedWhatTheLastOneTook) {
  tick(400_MiB);
  end();
  begin();
  const Bytes raised = Bytes((100_MiB).count() + correction_margin(100_MiB).count());
  EXPECT_EQ(reconciler.status().raised, raised);
  EXPECT_EQ(reservation->held(), Bytes(estimate().total().count() + raised.count()));
  tick(400_MiB);
  EXPECT_EQ(drift(), Drift::kWithin);
  end();
  // It was needed again, so it stays: compared is what the engine said, not what was added to it.
  begin();
  EXPECT_EQ(reconciler.status().raised, raised);
}

TEST_F(ReconcilerTest, AnotherProgramKnowsWhatThisOneMeasured) {
  tick(400_MiB);
  Reconciler killed(ledger, folder_.at("estimates.json"));  // This one never came to its end().
  killed.set_key("m");
  EXPECT_GT(killed.correct(estimate()).total(), estimate().total());
  killed.set_key("another");
  EXPECT_EQ(killed.correct(estimate()).total(), estimate().total());
}

TEST_F(ReconcilerTest, DoubtHalvesWhatIsRememberedUntilItIsGone) {
  tick(400_MiB);
  end();
  for (int i = 0; i < 40; ++i) reconciler.doubt();
  EXPECT_EQ(reconciler.correct(estimate()).total(), estimate().total());
}

}  // namespace
}  // namespace pensieve::model
