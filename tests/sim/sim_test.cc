// The simulation proves itself: it replays, things do happen in it, and it finds planted bugs.
#include "sim/simulation.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace pensieve::sim {
namespace {

class Simulation : public testing::Test {
 protected:
  static void SetUpTestSuite() { log::stop(); }  // Hundreds of thousands of lines.

  /// Whether one of some seeds finds the planted bug, and says `invariant`.
  static void expect_found(Flaw flaw, std::string_view invariant) {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
      const Outcome outcome = simulate({seed, 3000, flaw});
      if (!outcome.violation) continue;
      EXPECT_NE(outcome.violation->invariant.find(invariant), std::string::npos)
          << name(flaw) << ", seed " << seed << ": " << outcome.violation->invariant;
      EXPECT_NE(outcome.violation->last_events, "");
      return;
    }
    ADD_FAILURE() << "no seed finds the flaw " << name(flaw);
  }
};

TEST_F(Simulation, ASeedReplaysToTheLastEvent) {
  const Outcome first = simulate({7, 1500});
  const Outcome second = simulate({7, 1500});
  ASSERT_FALSE(first.violation) << first.violation->invariant;
  EXPECT_EQ(first.hash, second.hash);
  EXPECT_EQ(first.tally.accepted, second.tally.accepted);
}

TEST_F(Simulation, AnotherSeedIsAnotherStory) {
  EXPECT_NE(simulate({7, 200}).hash, simulate({8, 200}).hash);
}

TEST_F(Simulation, AFailureReplaysToTheSameStep) {
  const Outcome first = simulate({3, 3000, Flaw::kMixesAnswers});
  const Outcome second = simulate({3, 3000, Flaw::kMixesAnswers});
  ASSERT_TRUE(first.violation);
  ASSERT_TRUE(second.violation);
  EXPECT_EQ(first.violation->step, second.violation->step);
  EXPECT_EQ(first.violation->invariant, second.violation->invariant);
  EXPECT_EQ(first.hash, second.hash);
}

TEST_F(Simulation, TheInvariantsHoldAndEveryKindOfEndComesUp) {
  Tally tally;
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    const Outcome outcome = simulate({seed, 600});
    ASSERT_FALSE(outcome.violation)
        << "./dev sim " << seed << " --steps 600: step " << outcome.violation->step << ": "
        << outcome.violation->invariant << "\n"
        << outcome.violation->last_events;
    tally.add(outcome.tally);
  }
  for (const Ending ending :
       {Ending::kWhole, Ending::kErrorStatus, Ending::kErrorEvent, Ending::kHungUp}) {
    EXPECT_GT(tally.endings[ending], 0U) << static_cast<int>(ending);
  }
  using worker::WorkerEnd;
  for (const WorkerEnd end :
       {WorkerEnd::kClean, WorkerEnd::kCrashed, WorkerEnd::kOutOfMemory, WorkerEnd::kKilledByKernel,
        WorkerEnd::kKilled, WorkerEnd::kDeadline, WorkerEnd::kProtocolError}) {
    EXPECT_GT(tally.worker_ends[end], 0U) << worker::name(end);
  }
  EXPECT_GT(tally.refused_at_door, 0U);
}

TEST_F(Simulation, FindsAdmissionAtCritical) {
  expect_found(Flaw::kAdmitsAtCritical, "was admitted with");
}
TEST_F(Simulation, FindsReliefThatIsNeverSeen) {
  expect_found(Flaw::kStaysCritical, "wedged");
}
TEST_F(Simulation, FindsALeakedReservation) {
  expect_found(Flaw::kLeaksReservation, "promised to nobody");
}
TEST_F(Simulation, FindsAnEndThatIsNotTold) {
  expect_found(Flaw::kForgetsEnds, "ends were told");
}
TEST_F(Simulation, FindsARequestWithoutAnAnswer) {
  expect_found(Flaw::kDropsRequests, "was not answered");
}
TEST_F(Simulation, FindsARequestWithTwoAnswers) {
  expect_found(Flaw::kAnswersTwice, "was answered twice");
}
TEST_F(Simulation, FindsTextOfAnotherAnswer) {
  expect_found(Flaw::kMixesAnswers, "another answer than its own");
}

}  // namespace
}  // namespace pensieve::sim
