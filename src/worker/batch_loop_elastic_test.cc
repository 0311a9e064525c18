// A KV cache that is smaller than the window: when the loop asks for cells, what it does meanwhile,
// and that growing and shrinking change no answer.
#include "worker/batch_loop.h"
#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

using engine::Token;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kWaitMax = CellDemand::kCellsWaitMax;

class ElasticBatchLoopTest : public BatchLoopTest {
 protected:
  ElasticBatchLoopTest() { make({.cells = 100, .window = 400, .cells_max = 800}); }

  /// A gateway that grants at once, doubling.
  void grant_all() {
    events_.on_need = [this](const NeedCells& need) {
      std::uint32_t cells = need.cells_now;
      while (cells < need.cells_wanted) cells *= 2;
      loop_->resize(cells);
    };
  }
  void refuse_all() {
    events_.on_need = [this](const NeedCells&) {
      loop_->refuse_cells({memory::Level::kWarning, 1500_MiB, "no room for so many"});
    };
  }
  Limits caches_stay() const {
    return {.sequences_max = 4,
            .step_tokens_max = 256,
            .caches_grow = false,
            .parked_bytes_max = {},
            .stored_bytes_max = {}};
  }
};

TEST_F(ElasticBatchLoopTest, WhatFitsAsksForNothing) {
  const Job request = job(1, tokens_from(1, 50), 20);
  run_alone(request);
  expect_done(1, StopCause::kTokenLimit);
  EXPECT_TRUE(events_.needs.empty());
  EXPECT_EQ(loop_->stats().cells, 100U);
  EXPECT_EQ(loop_->stats().cells_used, 69U);
}

TEST_F(ElasticBatchLoopTest, AGenerationGrowsTheCacheBeforeItIsFullAndPausesForNothing) {
  grant_all();
  const Job request = job(1, tokens_from(1, 50), 300);
  run_alone(request);
  expect_done(1, StopCause::kTokenLimit);
  EXPECT_EQ(story(1).text, alone(request).text);
  EXPECT_EQ(engine_->refused_steps, 0U) << "asked while there was room to go on";
  EXPECT_EQ(engine_->resizes, (std::vector<std::uint32_t>{200, 400}));
  ASSERT_EQ(events_.resizes.size(), 2U);
  EXPECT_EQ(events_.resizes[0].cells, 200U);
  EXPECT_EQ(events_.resizes[0].dropped_tokens, 0U);
  EXPECT_EQ(events_.needs[0].cells_now, 100U);
}

TEST_F(ElasticBatchLoopTest, APromptThatDoesNotFitIsAcceptedOnlyWithItsCells) {
  const Job request = job(1, tokens_from(1, 150), 5);
  submit(request);
  EXPECT_FALSE(turn());
  EXPECT_FALSE(story(1).accepted) << "a refusal can still be a status";
  ASSERT_EQ(events_.needs.size(), 1U);
  EXPECT_GE(events_.needs[0].cells_wanted, 151U);
  EXPECT_TRUE(loop_->stats().lacks_cells);
  EXPECT_FALSE(loop_->stats().busy) << "waiting for a grant is not hanging";
  loop_->resize(200);
  drain();
  EXPECT_TRUE(story(1).accepted);
  expect_done(1, StopCause::kTokenLimit);
  EXPECT_EQ(story(1).text, alone(request).text);
  EXPECT_FALSE(loop_->stats().lacks_cells);
}

TEST_F(ElasticBatchLoopTest, APromptOfAllCellsButOneFitsAndOneMoreDoesNot) {
  submit(job(1, tokens_from(1, 99), 1));
  turn();
  EXPECT_TRUE(story(1).accepted);
  drain();
  expect_done(1, StopCause::kTokenLimit);
  submit(job(2, tokens_from(2, 100), 1));
  EXPECT_FALSE(turn());
  EXPECT_FALSE(story(2).accepted);
}

TEST_F(ElasticBatchLoopTest, WhoHasRoomGoesPastOneThatWaitsForCells) {
  submit(job(1, tokens_from(1, 150), 5));
  const Job small = job(2, tokens_from(2, 20), 5);
  submit(small);
  drain();
  expect_done(2, StopCause::kTokenLimit);
  EXPECT_EQ(story(2).text, alone(small).text);
  EXPECT_EQ(story(1).verdicts(), 0U);
  EXPECT_EQ(loop_->stats().waiting, 1U);
  loop_->cancel(1);
  EXPECT_FALSE(turn());
  expect_ended_silently(1);
}

TEST_F(ElasticBatchLoopTest, AsksAgainEachSecondAndRefusesWithTheNumbersAfterABoundedWait) {
  refuse_all();
  submit(job(1, tokens_from(1, 150), 5));
  const TimePoint began = clock_.now();
  while (clock_.now() - began < kWaitMax) {
    turn();
    EXPECT_EQ(story(1).verdicts(), 0U);
    clock_.advance(milliseconds(250));
  }
  EXPECT_EQ(events_.needs.size(), 10U);
  turn();
  ASSERT_EQ(story(1).refused.size(), 1U);
  const Refused& refused = story(1).refused.front();
  EXPECT_EQ(refused.level, memory::Level::kWarning);
  EXPECT_EQ(refused.available, 1500_MiB);
  EXPECT_EQ(refused.reason,
            "The request needs 151 KV cells, 100 are there, and no more came in 10 s: "
            "no room for so many");
  EXPECT_FALSE(story(1).accepted);
  EXPECT_EQ(story(1).ended, 1);
  EXPECT_EQ(loop_->stats().waiting, 0U);
}

TEST_F(ElasticBatchLoopTest, AGatewayThatNeverAnswersHangsNobody) {
  submit(job(1, tokens_from(1, 150), 5));
  submit(job(2, tokens_from(2, 50), 200));  // Will stand before full cells.
  drain();
  EXPECT_EQ(story(2).verdicts(), 0U);
  EXPECT_NE(story(2).text, "");
  clock_.advance(kWaitMax);
  drain();  // The first has waited; only now the second stops to wait for an answer.
  clock_.advance(kWaitMax);
  drain();
  for (const std::uint32_t id : {1U, 2U}) {
    ASSERT_EQ(story(id).refused.size(), 1U) << id;
    EXPECT_EQ(story(id).refused.front().level, memory::kLevelWhenUnknown);
    EXPECT_EQ(story(id).refused.front().available, std::nullopt);
    EXPECT_EQ(story(id).ended, 1);
  }
  const Job after = job(3, tokens_from(3, 20), 5);
  run_alone(after);
  EXPECT_EQ(story(3).text, alone(after).text);
}

TEST_F(ElasticBatchLoopTest, CellsThatComeAtLastStartTheWaitAnew) {
  submit(job(1, tokens_from(1, 60), 300));
  drain();
  EXPECT_EQ(engine_->cells_used(), 100U);
  clock_.advance(kWaitMax - milliseconds(1));
  loop_->resize(200);
  drain();
  EXPECT_EQ(engine_->cells_used(), 200U);
  clock_.advance(kWaitMax - milliseconds(1));
  drain();
  EXPECT_EQ(story(1).verdicts(), 0U);
  grant_all();
  clock_.advance(milliseconds(0));
  loop_->resize(400);
  drain();
  expect_done(1, StopCause::kTokenLimit);
}

TEST_F(ElasticBatchLoopTest, CellsThatComeInTheLastMomentAreNotTooLate) {
  submit(job(1, tokens_from(1, 60), 100));  // Stands before full cells.
  drain();
  clock_.advance(seconds(1));
  submit(job(2, tokens_from(2, 150), 5));  // Does not fit.
  drain();
  clock_.advance(kWaitMax);
  loop_->resize(400);
  drain();
  expect_done(1, StopCause::kTokenLimit);
  expect_done(2, StopCause::kTokenLimit);
}

TEST_F(ElasticBatchLoopTest, IdleSequencesAreKeptByGrowingAndForgottenWhereThatIsRefused) {
  run_alone(job(1, tokens_from(1, 60), 1));
  grant_all();
  run_alone(job(2, tokens_from(2, 60), 1));
  EXPECT_EQ(loop_->stats().cells, 200U);
  run_alone(job(3, tokens_from(1, 60), 1));
  EXPECT_EQ(cached(3), 59U);
  refuse_all();
  run_alone(job(4, tokens_from(4, 120), 1));
  expect_done(4, StopCause::kTokenLimit);
  EXPECT_EQ(loop_->stats().cells, 200U);
  run_alone(job(5, tokens_from(2, 60), 1));
  EXPECT_EQ(cached(5), 0U) << "the least recently used went";
}

TEST_F(ElasticBatchLoopTest, WhereCachesMayNotGrowIdleSequencesGoBeforeCellsAreAskedFor) {
  run_alone(job(1, tokens_from(1, 60), 1));
  loop_->set_limits(caches_stay());
  grant_all();
  run_alone(job(2, tokens_from(2, 60), 1));
  expect_done(2, StopCause::kTokenLimit);
  EXPECT_TRUE(events_.needs.empty());
  const Job large = job(3, tokens_from(3, 150), 1);
  run_alone(large);
  EXPECT_EQ(events_.needs.size(), 1U) << "what runs may grow";
  expect_done(3, StopCause::kTokenLimit);
}

TEST_F(ElasticBatchLoopTest, AsksForWhatIsNotSharedOnly) {
  grant_all();
  submit(job(1, tokens_from(1, 90), 50));
  turns(3);
  ASSERT_EQ(events_.needs.size(), 1U);
  EXPECT_EQ(loop_->stats().cells, 200U);
  std::vector<Token> same_head = tokens_from(1, 90);
  same_head.push_back(7);
  submit(job(2, same_head, 5));  // Alone it would want 200 and more beside the first.
  turn();
  EXPECT_EQ(cached(2), 90U);
  EXPECT_EQ(loop_->stats().running, 2U);
  drain();
  EXPECT_EQ(loop_->stats().cells, 200U);
}

TEST_F(ElasticBatchLoopTest, AnOpenQuestionIsWorthAShortWaitBeforeAnythingIsForgotten) {
  run_alone(job(1, tokens_from(1, 95), 1));
  const Job request = job(2, tokens_from(2, 60), 5);
  submit(request);
  EXPECT_FALSE(turn());
  EXPECT_EQ(engine_->tokens_held(), 95U) << "nothing is forgotten before the answer";
  ASSERT_EQ(events_.needs.size(), 1U);
  loop_->refuse_cells({memory::Level::kWarning, 1500_MiB, "no"});
  drain();
  expect_done(2, StopCause::kTokenLimit);
  EXPECT_EQ(story(2).text, alone(request).text);
}

TEST_F(ElasticBatchLoopTest, ShrinkingForgetsIdleSequencesLeastRecentlyUsedFirst) {
  make({.cells = 400, .window = 400, .cells_max = 400});
  run_alone(job(1, tokens_from(1, 90), 1));
  run_alone(job(2, tokens_from(2, 90), 1));
  run_alone(job(3, tokens_from(3, 90), 1));
  loop_->resize(200);
  turn();
  ASSERT_EQ(events_.resizes.size(), 1U);
  EXPECT_EQ(events_.resizes[0].cells, 200U);
  EXPECT_EQ(events_.resizes[0].cells_used, 180U);
  EXPECT_EQ(events_.resizes[0].dropped_tokens, 90U);
  EXPECT_EQ(engine_->cells(), 200U);
  run_alone(job(4, tokens_from(3, 90), 1));
  EXPECT_EQ(cached(4), 89U);
}

TEST_F(ElasticBatchLoopTest, ShrinkingTakesNothingFromRequestsThatRun) {
  make({.cells = 400, .window = 400, .cells_max = 400});
  refuse_all();
  run_alone(job(1, tokens_from(1, 60), 1));
  const Job running = job(2, tokens_from(2, 130), 60);
  submit(running);
  turns(2);
  loop_->resize(50);
  turn();
  ASSERT_EQ(events_.resizes.size(), 1U);
  EXPECT_EQ(events_.resizes[0].cells, 200U) << "50 doubled until it has room to go on";
  EXPECT_EQ(events_.resizes[0].dropped_tokens, 0U) << "the idle 60 fit beside it";
  loop_->resize(199);
  turn();
  EXPECT_EQ(events_.resizes[1].cells, 199U);
  drain();
  EXPECT_EQ(story(2).text, alone(running).text);
  expect_done(2, StopCause::kTokenLimit);
}

TEST_F(ElasticBatchLoopTest, WhereRunningRequestsNeedAllNothingIsForgottenInVain) {
  make({.cells = 200, .window = 200, .cells_max = 200});
  run_alone(job(1, tokens_from(1, 20), 1));
  submit(job(2, tokens_from(2, 130), 20));
  turns(2);
  loop_->resize(100);
  turn();
  EXPECT_EQ(events_.resizes.at(0).cells, 200U);
  EXPECT_EQ(events_.resizes.at(0).dropped_tokens, 0U);
  EXPECT_TRUE(engine_->resizes.empty());
  drain();
}

TEST_F(ElasticBatchLoopTest, EachOrderGetsOneAnswerAndOnlyTheLastIsCarriedOut) {
  loop_->resize(200);
  loop_->resize(300);
  loop_->resize(150);
  turn();
  ASSERT_EQ(events_.resizes.size(), 3U);
  for (const Resized& resized : events_.resizes) EXPECT_EQ(resized.cells, 150U);
  EXPECT_EQ(engine_->resizes, std::vector<std::uint32_t>{150});
}

TEST_F(ElasticBatchLoopTest, AResizeThatFailsForMemoryLeavesAllAsItWasAndIsAnswered) {
  const Job request = job(1, tokens_from(1, 50), 20);
  submit(request);
  turns(3);
  engine_->resize_error = Error{Code::kOutOfMemory, "no memory for so many cells"};
  loop_->resize(200);
  turn();
  ASSERT_EQ(events_.resizes.size(), 1U);
  EXPECT_EQ(events_.resizes[0].cells, 100U);
  drain();
  EXPECT_EQ(story(1).text, alone(request).text);
}

TEST_F(ElasticBatchLoopTest, AGrantThatFailsAgainAndAgainDoesNotKeepTheLoopBusy) {
  grant_all();
  engine_->resize_error = Error{Code::kOutOfMemory, "no memory for so many cells"};
  submit(job(1, tokens_from(1, 150), 5));
  for (int i = 0; i < 20; ++i) {
    turn();
    clock_.advance(milliseconds(100));
  }
  EXPECT_EQ(engine_->resizes.size(), 2U) << "one a second";
}

TEST_F(ElasticBatchLoopTest, AResizeThatLosesTheSequencesEndsTheLoop) {
  engine_->resize_error = Error{Code::kInternal, "the old cache did not come back"};
  loop_->resize(200);
  const Result<bool> worked = loop_->turn();
  ASSERT_FALSE(worked);
  EXPECT_EQ(worked.error().message, "the old cache did not come back");
}

TEST_F(ElasticBatchLoopTest, NeverAsksForMoreThanItMayHaveAndEndsAtTheWindowAsEver) {
  make({.cells = 50, .window = 100, .cells_max = 100});
  grant_all();
  const Job request = job(1, tokens_from(1, 30), 1000);
  run_alone(request);
  expect_done(1, StopCause::kWindowFull);
  EXPECT_EQ(story(1).text, alone(request).text);
  EXPECT_EQ(loop_->stats().cells, 100U);
  for (const NeedCells& need : events_.needs) EXPECT_LE(need.cells_wanted, 100U);
}

}  // namespace
}  // namespace pensieve::worker
