#include "worker/process_memory.h"

#include <memory>

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

TEST(ProcessMemoryTest, ThisProcessHasSomeOfBothAndMoreResidentThanAnonymous) {
  const Result<ProcessMemory> memory = own_process_memory();
  ASSERT_TRUE(memory) << memory.error().message;
  EXPECT_GT(memory->anonymous, Bytes());
  EXPECT_GE(memory->resident, memory->anonymous);
}

TEST(ProcessMemoryTest, MemoryThatIsTakenShowsInBoth) {
  constexpr std::size_t kTaken = 32U << 20;
  const Result<ProcessMemory> before = own_process_memory();
  const auto taken = std::make_unique_for_overwrite<char[]>(kTaken);
  volatile char* const pages = taken.get();
  for (std::size_t i = 0; i < kTaken; i += 4096) pages[i] = 1;
  const Result<ProcessMemory> after = own_process_memory();
  ASSERT_TRUE(before && after);
  EXPECT_GE(saturating_sub(after->anonymous, before->anonymous), 30_MiB);
  EXPECT_GE(saturating_sub(after->resident, before->resident), 30_MiB);
}

}  // namespace
}  // namespace pensieve::worker
