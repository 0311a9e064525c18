#include "engine/allocation_account.h"

#include <array>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

class AllocationAccountTest : public testing::Test {
 protected:
  static std::vector<char> block(Bytes size) { return std::vector<char>(size.count()); }

  const std::shared_ptr<AllocationPool> pool_ = std::make_shared<AllocationPool>(8_MiB);
};

TEST_F(AllocationAccountTest, WhatIsTakenAndGivenBackInItsScopesIsCounted) {
  AllocationAccount account(8_MiB, pool_);
  std::vector<char> kept;
  {
    const AllocationScope scope(account);
    kept = block(1_MiB);
    const std::vector<char> gone = block(2_MiB);
    EXPECT_GE(account.held(), 3_MiB);
  }
  const Bytes held = account.held();
  EXPECT_GE(held, 1_MiB);
  EXPECT_LT(held, 2_MiB);
  EXPECT_EQ(account.borrowed(), Bytes());
  const std::vector<char> outside = block(16_MiB);
  EXPECT_EQ(account.held(), held);
}

TEST_F(AllocationAccountTest, MoreThanItsOwnIsBorrowedAndGivenBackAtItsEnd) {
  {
    AllocationAccount account(4_MiB, pool_);
    const AllocationScope scope(account);
    EXPECT_EQ(block(7_MiB).size(), (7_MiB).count());
    EXPECT_GE(account.borrowed(), 4_MiB) << "a megabyte of its own is for small blocks";
    EXPECT_LT(account.borrowed(), 5_MiB);
    EXPECT_EQ(pool_->left(), saturating_sub(8_MiB, account.borrowed()));
  }
  EXPECT_EQ(pool_->left(), 8_MiB);
}

TEST_F(AllocationAccountTest, WhatIsBeyondBothIsRefusedAndTakesNothing) {
  AllocationAccount account(4_MiB, pool_);
  const AllocationScope scope(account);
  EXPECT_THROW(block(12_MiB), AllocationRefused);
  EXPECT_EQ(account.borrowed(), Bytes());
  EXPECT_EQ(block(10_MiB).size(), (10_MiB).count());
  EXPECT_EQ(new (std::nothrow) char[(64_MiB).count()], nullptr);
}

TEST_F(AllocationAccountTest, SmallBlocksHaveALittleMoreAndAnEndAsWell) {
  AllocationAccount account(4_MiB, std::make_shared<AllocationPool>(Bytes()));
  const AllocationScope scope(account);
  const std::vector<char> large = block(saturating_sub(3_MiB, Bytes(64 << 10)));
  EXPECT_THROW(block(Bytes(128 << 10)), AllocationRefused);
  std::list<std::array<char, 512>> small;
  const auto fill = [&small] {
    for (int i = 0; i < 4096; ++i) small.emplace_back();
  };
  EXPECT_THROW(fill(), AllocationRefused);
  EXPECT_GT(small.size(), 1024U);
  EXPECT_LE(account.held(), 4_MiB);
}

TEST_F(AllocationAccountTest, ADestructorMayAllocateWhereThereIsNoMore) {
  struct Last {
    ~Last() { EXPECT_EQ(block(1_MiB).size(), (1_MiB).count()); }
  };
  AllocationAccount account(Bytes(4096), std::make_shared<AllocationPool>(Bytes()));
  const AllocationScope scope(account);
  const auto work = [] {
    const Last last;
    return block(1_MiB);
  };
  EXPECT_THROW(work(), AllocationRefused);
}

TEST_F(AllocationAccountTest, WhatOneHasBorrowedAnotherCannot) {
  AllocationAccount hog(Bytes(), pool_);
  AllocationAccount other(2_MiB, pool_);
  std::vector<char> kept;
  {
    const AllocationScope scope(hog);
    kept = block(7_MiB);
  }
  const AllocationScope scope(other);
  EXPECT_THROW(block(4_MiB), AllocationRefused);
  EXPECT_EQ(block(1_MiB).size(), (1_MiB).count()) << "its own is its own";
}

TEST_F(AllocationAccountTest, OneThatIsStoppedGetsNothingMore) {
  AllocationAccount account(4_MiB, pool_);
  std::thread([&account] { account.stop(); }).join();
  const AllocationScope scope(account);
  EXPECT_THROW(block(Bytes(4096)), AllocationRefused);
}

TEST_F(AllocationAccountTest, OtherThreadsAndOverAlignedBlocksAreTheirOwn) {
  struct alignas(256) Wide {
    char bytes[4096];
  };
  AllocationAccount account(1_MiB, pool_);
  const AllocationScope scope(account);
  std::thread([] { EXPECT_EQ(block(32_MiB).size(), (32_MiB).count()); }).join();
  const auto wide = std::make_unique<Wide>();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(wide.get()) % 256, 0U);
  EXPECT_GE(account.held(), Bytes(4096));
  EXPECT_LT(account.held(), 1_MiB);
}

}  // namespace
}  // namespace pensieve::engine
