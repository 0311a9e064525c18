#include "worker/chunk_size.h"

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(ChunkSizeTest, StartsWithAFixedSizeWithinItsBounds) {
  EXPECT_EQ(ChunkSize(256).tokens(true), 64U);
  EXPECT_EQ(ChunkSize(256).tokens(false), 64U);
  EXPECT_EQ(ChunkSize(40).tokens(false), 40U);
  EXPECT_EQ(ChunkSize(1).tokens(false), ChunkSize::kTokensMin);
}

TEST(ChunkSizeTest, AimsAtTheGapThatOthersMaySeeAndAtMoreWhenAlone) {
  ChunkSize chunk(1000);
  chunk.observe(100, seconds(1));
  EXPECT_EQ(chunk.tokens(true), 16U) << "12 would meet the target, but 16 is the least";
  EXPECT_EQ(chunk.tokens(false), 72U);
  ChunkSize faster(1000);
  faster.observe(1000, seconds(1));
  EXPECT_EQ(faster.tokens(true), 120U);
  EXPECT_EQ(faster.tokens(false), 744U);
}

TEST(ChunkSizeTest, NeverLeavesItsBounds) {
  ChunkSize slow(512);
  slow.observe(16, seconds(1000));
  EXPECT_EQ(slow.tokens(true), ChunkSize::kTokensMin);
  EXPECT_EQ(slow.tokens(false), ChunkSize::kTokensMin);
  ChunkSize fast(512);
  fast.observe(1'000'000, Duration(1));
  EXPECT_EQ(fast.tokens(true), 512U);
  EXPECT_EQ(fast.tokens(false), 512U);
}

TEST(ChunkSizeTest, IsAMultipleOfEight) {
  ChunkSize chunk(1000);
  for (std::uint32_t tokens = 100; tokens < 2000; tokens += 37) {
    chunk.observe(tokens, seconds(1));
    EXPECT_EQ(chunk.tokens(false) % 8, 0U);
  }
}

TEST(ChunkSizeTest, SlowerCountsAtOnceAndFasterByAndBy) {
  ChunkSize chunk(1000);
  chunk.observe(1000, seconds(1));
  chunk.observe(200, seconds(1));
  EXPECT_EQ(chunk.tokens(true), 24U);
  chunk.observe(1000, seconds(1));
  EXPECT_EQ(chunk.tokens(true), 48U) << "a quarter of the way: 400 a second";
  chunk.observe(1000, seconds(1));
  EXPECT_EQ(chunk.tokens(true), 64U);
  for (int i = 0; i < 30; ++i) chunk.observe(1000, seconds(1));
  EXPECT_EQ(chunk.tokens(true), 112U) << "just under the full speed's 120";
}

TEST(ChunkSizeTest, IgnoresStepsThatSayLittle) {
  ChunkSize chunk(1000);
  chunk.observe(ChunkSize::kTokensMin - 1, seconds(1));
  chunk.observe(100, Duration(0));
  EXPECT_EQ(chunk.tokens(true), 64U) << "still unmeasured";
  chunk.observe(ChunkSize::kTokensMin, milliseconds(16));
  EXPECT_EQ(chunk.tokens(true), 120U);
}

}  // namespace
}  // namespace pensieve::worker
