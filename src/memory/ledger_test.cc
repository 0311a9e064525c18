#include "memory/ledger.h"

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

TEST(LedgerTest, GrantsUpToTheFloorAndNotOneByteMore) {
  Ledger ledger;
  EXPECT_TRUE(ledger.try_reserve(3_GiB, 4_GiB, 1_GiB).has_value());
  EXPECT_FALSE(ledger.try_reserve(Bytes((3_GiB).count() + 1), 4_GiB, 1_GiB).has_value());
}

TEST(LedgerTest, ARefusalSaysTheNumbersAndChangesNothing) {
  Ledger ledger;
  const Reservation held = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  const auto refused = ledger.try_reserve(3_GiB, 4_GiB, 1_GiB);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().needed, 3_GiB);
  EXPECT_EQ(refused.error().available, 4_GiB);
  EXPECT_EQ(refused.error().outstanding, 1_GiB);
  EXPECT_EQ(refused.error().floor, 1_GiB);
  EXPECT_EQ(ledger.promised(), 1_GiB);
}

TEST(LedgerTest, AShortageReadsAsASentenceWhoseNeedIsRoundedUp) {
  EXPECT_EQ(describe({Bytes((2_GiB).count() + 1), 4_GiB, 1_GiB, 1_GiB}),
            "needs 2.01GB, but only 2.00GB can be promised: 4.00GB available, 1.00GB of it "
            "promised and not yet taken, 1.00GB kept free");
}

TEST(LedgerTest, WhatIsPromisedAndNotTakenIsMissingForOthers) {
  Ledger ledger;
  const Reservation first = *ledger.try_reserve(2_GiB, 4_GiB, 1_GiB);
  EXPECT_FALSE(ledger.try_reserve(2_GiB, 4_GiB, 1_GiB).has_value());
  EXPECT_TRUE(ledger.try_reserve(1_GiB, 4_GiB, 1_GiB).has_value());
}

TEST(LedgerTest, WhatHasBecomeResidentIsNotSubtractedTwice) {
  Ledger ledger;
  Reservation first = *ledger.try_reserve(2_GiB, 4_GiB, 1_GiB);
  first.settle(2_GiB);
  EXPECT_EQ(ledger.outstanding(), Bytes());
  EXPECT_EQ(ledger.promised(), 2_GiB);
  // The kernel shows 2 GiB now, and 1 GiB of that may go.
  EXPECT_TRUE(ledger.try_reserve(1_GiB, 2_GiB, 1_GiB).has_value());
}

TEST(LedgerTest, APartlyResidentPromiseOwesTheRest) {
  Ledger ledger;
  Reservation first = *ledger.try_reserve(2_GiB, 8_GiB, 1_GiB);
  first.settle(512_MiB);
  EXPECT_EQ(ledger.outstanding(), 1536_MiB);
  first.settle(256_MiB);
  EXPECT_EQ(ledger.outstanding(), 1792_MiB) << "what was given back to the kernel is owed again";
}

TEST(LedgerTest, UsingMoreThanWasPromisedMakesNoRoomForOthers) {
  Ledger ledger;
  Reservation greedy = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  const Reservation other = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  greedy.settle(5_GiB);
  EXPECT_EQ(greedy.resident(), 1_GiB);
  EXPECT_EQ(ledger.outstanding(), 1_GiB);
}

TEST(LedgerTest, ANeverSettledPromiseStaysOutstanding) {
  Ledger ledger;
  const Reservation mapped_weights = *ledger.try_reserve(2_GiB, 8_GiB, 1_GiB);
  // All pages are in memory by now, and the kernel still counts them as available.
  EXPECT_EQ(ledger.largest_that_fits(8_GiB, 1_GiB), 5_GiB);
}

TEST(LedgerTest, TheLargestThatFitsIsGrantedAndOneByteMoreIsNot) {
  Ledger ledger;
  const Reservation held = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  const Bytes largest = ledger.largest_that_fits(8_GiB, 1_GiB);
  EXPECT_EQ(largest, 6_GiB);
  EXPECT_FALSE(ledger.try_reserve(Bytes(largest.count() + 1), 8_GiB, 1_GiB).has_value());
  EXPECT_TRUE(ledger.try_reserve(largest, 8_GiB, 1_GiB).has_value());
}

TEST(LedgerTest, BelowTheFloorNothingFitsNotEvenNothing) {
  Ledger ledger;
  EXPECT_EQ(ledger.largest_that_fits(512_MiB, 1_GiB), Bytes());
  EXPECT_FALSE(ledger.try_reserve(Bytes(), 512_MiB, 1_GiB).has_value());
  EXPECT_TRUE(ledger.try_reserve(Bytes(), 1_GiB, 1_GiB).has_value());
}

TEST(LedgerTest, SumsThatDoNotFit64BitsAreRefused) {
  const Bytes all(UINT64_MAX);
  Ledger ledger;
  EXPECT_FALSE(ledger.try_reserve(all, all, Bytes(1)).has_value());
  Reservation everything = *ledger.try_reserve(all, all, Bytes());
  EXPECT_FALSE(ledger.try_reserve(Bytes(), all, Bytes(1)).has_value());
  everything.settle(all);
  EXPECT_FALSE(ledger.try_reserve(Bytes(1), all, Bytes()).has_value()) << "promised() would wrap";
}

TEST(LedgerTest, TheDestructorGivesBackWhatWasHeldAndWhatWasResident) {
  Ledger ledger;
  {
    Reservation reservation = *ledger.try_reserve(2_GiB, 8_GiB, 1_GiB);
    reservation.settle(1_GiB);
  }
  EXPECT_EQ(ledger.promised(), Bytes());
  EXPECT_EQ(ledger.outstanding(), Bytes());
}

TEST(LedgerTest, ShrinkingGivesBackAllAboveTheNewAmount) {
  Ledger ledger;
  Reservation reservation = *ledger.try_reserve(3_GiB, 8_GiB, 1_GiB);
  reservation.settle(1_GiB);
  reservation.shrink(2_GiB);
  EXPECT_EQ(ledger.promised(), 2_GiB);
  EXPECT_EQ(ledger.outstanding(), 1_GiB);
  reservation.shrink(512_MiB);
  EXPECT_EQ(reservation.resident(), 512_MiB);
  EXPECT_EQ(ledger.promised(), 512_MiB);
  EXPECT_EQ(ledger.outstanding(), Bytes());
}

TEST(LedgerTest, AMovedReservationIsGivenBackOnce) {
  Ledger ledger;
  std::optional<Reservation> outer;
  {
    Reservation inner = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
    inner.settle(512_MiB);
    outer = std::move(inner);
  }
  EXPECT_EQ(outer->held(), 1_GiB);
  EXPECT_EQ(outer->resident(), 512_MiB);
  EXPECT_EQ(ledger.promised(), 1_GiB);
  outer.reset();
  EXPECT_EQ(ledger.promised(), Bytes());
}

TEST(LedgerTest, AssigningGivesBackWhatTheTargetHeld) {
  Ledger ledger;
  Reservation target = *ledger.try_reserve(2_GiB, 8_GiB, 1_GiB);
  target = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  EXPECT_EQ(ledger.promised(), 1_GiB);
}

TEST(LedgerTest, ManyThreadsTogetherAreNeverPromisedMoreThanThereIs) {
  Ledger ledger;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&ledger] {
      for (int i = 0; i < 2000; ++i) {
        auto reservation = ledger.try_reserve(1_GiB, 3_GiB, 1_GiB);
        EXPECT_LE(ledger.promised(), 2_GiB);
        if (reservation) reservation->settle(Bytes());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.promised(), Bytes());
}

TEST(LedgerDeathTest, GrowingAReservationIsAFault) {
  Ledger ledger;
  Reservation reservation = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  EXPECT_DEATH(reservation.shrink(2_GiB), "CHECK failed");
}

TEST(LedgerDeathTest, AReservationThatOutlivesItsLedgerIsAFault) {
  EXPECT_DEATH(
      {
        std::optional<Ledger> ledger(std::in_place);
        const Reservation reservation = *ledger->try_reserve(1_GiB, 8_GiB, 1_GiB);
        ledger.reset();
      },
      "CHECK failed");
}

TEST(LedgerTest, WhatIsBookedIsNotRefusedAndIsMissingForOthers) {
  Ledger ledger;
  const Reservation taken = ledger.book(8_GiB);
  EXPECT_EQ(ledger.promised(), 8_GiB);
  EXPECT_EQ(ledger.outstanding(), 8_GiB);
  EXPECT_FALSE(ledger.try_reserve(Bytes(1), 8_GiB, Bytes()).has_value());
}

TEST(LedgerTest, OneReservationTakesOverAnotherWithoutAChangeOfTheSums) {
  Ledger ledger;
  Reservation first = *ledger.try_reserve(2_GiB, 8_GiB, 1_GiB);
  Reservation second = *ledger.try_reserve(1_GiB, 8_GiB, 1_GiB);
  second.settle(512_MiB);
  first.absorb(std::move(second));
  EXPECT_EQ(first.held(), 3_GiB);
  EXPECT_EQ(first.resident(), 512_MiB);
  EXPECT_EQ(ledger.promised(), 3_GiB);
  EXPECT_EQ(ledger.outstanding(), 2560_MiB);
}

TEST(LedgerTest, APartOfAReservationIsGivenBackByItself) {
  Ledger ledger;
  Reservation whole = *ledger.try_reserve(3_GiB, 8_GiB, 1_GiB);
  whole.settle(2560_MiB);
  {
    const Reservation part = whole.split(1_GiB);
    EXPECT_EQ(part.held(), 1_GiB);
    EXPECT_EQ(part.resident(), 512_MiB) << "what does not fit the rest is resident here";
    EXPECT_EQ(whole.resident(), 2_GiB);
    EXPECT_EQ(ledger.promised(), 3_GiB);
    EXPECT_EQ(ledger.outstanding(), 512_MiB);
  }
  EXPECT_EQ(ledger.promised(), 2_GiB);
  EXPECT_EQ(ledger.outstanding(), Bytes());
}

}  // namespace
}  // namespace pensieve::memory
