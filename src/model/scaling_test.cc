// What a worker may use on each rung, and that nothing trembles between two of them.
#include "model/scaling.h"

#include <gtest/gtest.h>

namespace pensieve::model {
namespace {

using memory::Rung;

constexpr ScalingMost kMost{.sequences = 4, .step_tokens = 512, .parked = 2_GiB, .stored = 8_GiB};

worker::Limits at(Rung rung, Bytes parked_now = Bytes(), Bytes spare = Bytes()) {
  return limits_at(rung, kMost, parked_now, spare);
}

TEST(Scaling, SequencesAndStepsShrinkWithTheRungAndComeBack) {
  for (const Rung rung : {Rung::kNone, Rung::kHoldCaches}) {
    EXPECT_EQ(at(rung).sequences_max, 4U);
    EXPECT_EQ(at(rung).step_tokens_max, 512U);
  }
  for (const Rung rung : {Rung::kSmallSteps, Rung::kSpillCaches, Rung::kUnloadIdle}) {
    EXPECT_EQ(at(rung).sequences_max, 2U);
    EXPECT_EQ(at(rung).step_tokens_max, 128U);
  }
  for (const Rung rung : {Rung::kRefuse, Rung::kEndRunning, Rung::kDropEngines}) {
    EXPECT_EQ(at(rung).sequences_max, 1U);
    EXPECT_EQ(at(rung).step_tokens_max, kStepTokensLeast);
  }
}

TEST(Scaling, ThereIsAlwaysOneSequenceAndAStepWhateverTheUserHasSet) {
  const ScalingMost least{.sequences = 1, .step_tokens = 2, .parked = Bytes(), .stored = Bytes()};
  for (std::size_t i = 0; i < memory::kRungCount; ++i) {
    const worker::Limits limits = limits_at(static_cast<Rung>(i), least, Bytes(), 1_GiB);
    EXPECT_EQ(limits.sequences_max, 1U);
    EXPECT_GE(limits.step_tokens_max, 1U);
    EXPECT_LE(limits.step_tokens_max, 2U) << "never more than the user has set";
    EXPECT_EQ(limits.parked_bytes_max, Bytes());
  }
}

TEST(Scaling, CachesGrowOnlyWhileNoRungIsInForce) {
  EXPECT_TRUE(at(Rung::kNone).caches_grow);
  EXPECT_FALSE(at(Rung::kHoldCaches).caches_grow);
}

TEST(Scaling, ParkedStatesGetHalfOfWhatTheLedgerCanSpare) {
  EXPECT_EQ(at(Rung::kNone, Bytes(), 1_GiB).parked_bytes_max, 512_MiB);
  EXPECT_EQ(at(Rung::kNone, 512_MiB, 512_MiB).parked_bytes_max, 512_MiB)
      << "what they have is part of it: it stays where it is";
  EXPECT_EQ(at(Rung::kNone, Bytes(), 100_GiB).parked_bytes_max, 2_GiB) << "the user's bound";
  EXPECT_EQ(at(Rung::kNone, 512_MiB, Bytes()).parked_bytes_max, 256_MiB)
      << "another needs the memory: they give way";
  EXPECT_EQ(at(Rung::kNone, Bytes(), 127_MiB).parked_bytes_max, Bytes());
  EXPECT_EQ(at(Rung::kNone, Bytes(), 128_MiB).parked_bytes_max, 64_MiB);
  EXPECT_EQ(at(Rung::kNone, Bytes(), 255_MiB).parked_bytes_max, 64_MiB);
  EXPECT_EQ(at(Rung::kNone, Bytes(UINT64_MAX), 1_GiB).parked_bytes_max, 2_GiB);
}

TEST(Scaling, ParkedStatesStayAtCautionAndGoAtSpilling) {
  for (const Rung rung : {Rung::kHoldCaches, Rung::kSmallSteps}) {
    EXPECT_EQ(at(rung, 512_MiB, 8_GiB).parked_bytes_max, 512_MiB);
  }
  for (std::size_t i = static_cast<std::size_t>(Rung::kSpillCaches); i < memory::kRungCount; ++i) {
    EXPECT_EQ(at(static_cast<Rung>(i), 512_MiB, 8_GiB).parked_bytes_max, Bytes());
  }
}

TEST(Scaling, TheDiskBudgetIsTheUsers) {
  for (std::size_t i = 0; i < memory::kRungCount; ++i) {
    EXPECT_EQ(at(static_cast<Rung>(i)).stored_bytes_max, 8_GiB);
  }
}

}  // namespace
}  // namespace pensieve::model
