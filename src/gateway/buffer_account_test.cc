#include "gateway/buffer_account.h"

#include <utility>

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"
#include "memory/testing/fake_memory_source.h"

namespace pensieve::gateway {
namespace {

class BufferAccountTest : public testing::Test {
 protected:
  BufferAccountTest() { set_available(8_GiB); }
  void set_available(Bytes available) {
    source.set_available(available);
    monitor.sample();
  }

  memory::FakeMemorySource source;
  FakeClock clock;
  memory::Monitor monitor{source, clock, {}};
  memory::Ledger ledger;
  BufferAccount account{ledger, monitor, {.bytes_max = 512_MiB, .floors = {}}};
};

TEST_F(BufferAccountTest, TheSumIsBoundedToTheByte) {
  const auto first = account.try_charge(500_MiB);
  ASSERT_TRUE(first);
  EXPECT_FALSE(account.try_charge(Bytes((12_MiB).count() + 1)));
  EXPECT_TRUE(account.try_charge(12_MiB));
  EXPECT_EQ(account.held(), 500_MiB);
}

TEST_F(BufferAccountTest, WhatIsChargedIsMissingInTheLedgerUntilItIsGivenBack) {
  {
    const auto charge = account.try_charge(100_MiB);
    EXPECT_EQ(ledger.outstanding(), 100_MiB);
  }
  EXPECT_EQ(ledger.promised(), Bytes());
  EXPECT_EQ(account.held(), Bytes());
}

TEST_F(BufferAccountTest, AChargeThatGrewAndShrankIsWhatItSays) {
  auto charge = account.try_charge(1_MiB);
  ASSERT_TRUE(charge);
  EXPECT_TRUE(charge->try_grow(3_MiB));
  EXPECT_TRUE(charge->try_grow(2_MiB));
  EXPECT_EQ(charge->held(), 3_MiB);
  charge->shrink(1_MiB);
  EXPECT_EQ(account.held(), 1_MiB);
  EXPECT_EQ(ledger.promised(), 1_MiB);
  charge->give_back();
  EXPECT_EQ(ledger.promised(), Bytes());
}

TEST_F(BufferAccountTest, ARefusedGrowthChangesNothing) {
  auto charge = account.try_charge(500_MiB);
  ASSERT_TRUE(charge);
  EXPECT_FALSE(charge->try_grow(513_MiB));
  EXPECT_EQ(charge->held(), 500_MiB);
  EXPECT_EQ(account.held(), 500_MiB);
}

TEST_F(BufferAccountTest, APartOutlivesTheWhole) {
  auto charge = account.try_charge(3_MiB);
  ASSERT_TRUE(charge);
  BufferCharge part = charge->split(1_MiB);
  EXPECT_EQ(account.held(), 3_MiB);
  charge->give_back();
  EXPECT_EQ(account.held(), 1_MiB);
  part = BufferCharge();
  EXPECT_EQ(account.held(), Bytes());
  EXPECT_EQ(ledger.promised(), Bytes());
}

TEST_F(BufferAccountTest, TheSmallestAreTakenAlsoWhereMemoryIsShortOrUnknown) {
  set_available(1_MiB);
  EXPECT_TRUE(account.try_charge(BufferAccount::kUnrefusedBytes));
  source.fail("gone");
  clock.advance(std::chrono::seconds(10));
  EXPECT_TRUE(account.try_charge(BufferAccount::kUnrefusedBytes));
  const auto refused = account.try_charge(Bytes(BufferAccount::kUnrefusedBytes.count() + 1));
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().unknown);
}

TEST_F(BufferAccountTest, GrowingPastTheSmallestAsksForTheMemory) {
  set_available(1_MiB);
  auto charge = account.try_charge(BufferAccount::kUnrefusedBytes);
  ASSERT_TRUE(charge);
  EXPECT_FALSE(charge->try_grow(Bytes(BufferAccount::kUnrefusedBytes.count() + 1)));
}

TEST_F(BufferAccountTest, OrdinaryOnesStopAtTheCriticalFloor) {
  set_available(Bytes((1_GiB).count() + (10_MiB).count()));
  EXPECT_FALSE(account.try_charge(Bytes((10_MiB).count() + 1)));
  const auto charge = account.try_charge(10_MiB);
  ASSERT_TRUE(charge);
  const auto refused = account.try_charge(2_MiB);
  ASSERT_FALSE(refused);
  EXPECT_EQ(describe(refused.error()),
            "The request needs 2.0MB of buffers, and memory is short: 1.00GB available, 0.00GB of "
            "it promised and not yet taken, 1.00GB kept free");
}

TEST_F(BufferAccountTest, MappedWeightsThatStayPromisedRefuseOnlyTheLargest) {
  set_available(4_GiB);
  const memory::Reservation weights = ledger.book(3_GiB);
  EXPECT_TRUE(account.try_charge(BufferAccount::kOrdinaryBytes));
  EXPECT_FALSE(account.try_charge(Bytes(BufferAccount::kOrdinaryBytes.count() + 1)));
}

TEST_F(BufferAccountTest, AModelCannotBePromisedWhatBuffersHold) {
  set_available(2_GiB);
  const auto charge = account.try_charge(16_MiB);
  EXPECT_FALSE(ledger.try_reserve(1_GiB, 2_GiB, 1_GiB));
  EXPECT_TRUE(ledger.try_reserve(Bytes((1_GiB).count() - (16_MiB).count()), 2_GiB, 1_GiB));
}

TEST(RequestBytesTest, TheSmallestBodyIsNeverRefusedForMemory) {
  EXPECT_EQ(request_bytes(0), Bytes(64U << 10));
  EXPECT_EQ(request_bytes(1), Bytes((64U << 10) + 4));
}

}  // namespace
}  // namespace pensieve::gateway
