// When KV cells or memory run short, and how requests leave early: what is forgotten, what stays,
// and that the engine's cache is cleared after every single one.
#include <chrono>

#include "worker/batch_loop.h"
#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

using engine::Token;

TEST_F(BatchLoopTest, TheLeastRecentlyUsedIdleSequenceIsForgottenFirst) {
  make({.cells = 200});
  run_alone(job(1, tokens_from(1, 50), 1));
  run_alone(job(2, tokens_from(2, 50), 1));
  run_alone(job(3, tokens_from(3, 50), 1));
  run_alone(job(4, tokens_from(1, 50), 1));  // Uses the first once more.
  ASSERT_EQ(cached(4), 49U);
  run_alone(job(5, tokens_from(5, 90), 1));
  expect_done(5, StopCause::kTokenLimit);
  EXPECT_EQ(engine_->refused_steps, 1U);
  run_alone(job(6, tokens_from(1, 50), 1));
  EXPECT_EQ(cached(6), 49U);
  run_alone(job(7, tokens_from(3, 50), 1));
  EXPECT_EQ(cached(7), 49U);
  run_alone(job(8, tokens_from(2, 50), 1));
  EXPECT_EQ(cached(8), 0U);
}

TEST_F(BatchLoopTest, WithoutAFreeSequenceTheLeastRecentlyUsedIsReplaced) {
  make({.sequences = 2});
  run_alone(job(1, tokens_from(1, 50), 1));
  run_alone(job(2, tokens_from(2, 50), 1));
  run_alone(job(3, tokens_from(3, 50), 1));
  run_alone(job(4, tokens_from(2, 50), 1));
  EXPECT_EQ(cached(4), 49U);
  run_alone(job(5, tokens_from(1, 50), 1));
  EXPECT_EQ(cached(5), 0U);
}

TEST_F(BatchLoopTest, TheNewestGivesUpItsCellsWaitsAndEndsWithTheSameText) {
  make({.cells = 100});
  const Job older = job(1, tokens_from(1, 40), 30);
  const Job newer = job(2, tokens_from(2, 20), 35);
  submit(older);
  submit(newer);
  turn();
  while (loop_->stats().waiting == 0) ASSERT_TRUE(turn()) << "the cells never ran out";
  const std::string text_so_far = story(2).text;
  EXPECT_NE(text_so_far, "");
  EXPECT_EQ(engine_->tokens_of(1).size(), 0U);
  while (story(1).done.empty()) {
    ASSERT_TRUE(turn());
    EXPECT_EQ(story(2).text, text_so_far) << "a pause, and nothing is lost or said twice";
  }
  drain();
  EXPECT_EQ(story(1).text, alone(older).text);
  EXPECT_EQ(story(2).text, alone(newer).text);
  EXPECT_EQ(story(2).started.size(), 1U);
  expect_done(1, StopCause::kTokenLimit);
  expect_done(2, StopCause::kTokenLimit);
  EXPECT_EQ(story(2).done.front().output_tokens, 35U);
}

TEST_F(BatchLoopTest, WhoGaveUpItsCellsGoesOnBeforeThoseThatNeverBegan) {
  make({.cells = 100, .sequences = 2});
  submit(job(1, tokens_from(1, 40), 30));
  submit(job(2, tokens_from(2, 20), 35));
  submit(job(3, tokens_from(3, 5), 1));  // Small enough to slip in.
  turn();
  while (loop_->stats().waiting < 2) ASSERT_TRUE(turn()) << "the cells never ran out";
  while (story(1).done.empty()) {
    ASSERT_TRUE(turn());
    EXPECT_TRUE(story(3).started.empty());
  }
  drain();
  expect_done(2, StopCause::kTokenLimit);
  expect_done(3, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, ManyThatDoNotFitTogetherAllEndWithTheirOwnText) {
  make({.cells = 120});
  std::vector<Job> jobs;
  for (std::uint32_t id = 1; id <= 8; ++id) {
    jobs.push_back(job(id, tokens_from(static_cast<Token>(id), 10), 60));
    submit(jobs.back());
  }
  drain();
  for (const Job& request : jobs) {
    EXPECT_EQ(story(request.id).text, alone(request).text) << "request " << request.id;
    EXPECT_EQ(story(request.id).started.size(), 1U);
    expect_done(request.id, StopCause::kTokenLimit);
  }
}

TEST_F(BatchLoopTest, ANewcomerWaitsUntilThereIsRoomForItToGrow) {
  make({.cells = 80});  // Room to grow: 10.
  submit(job(1, tokens_from(1, 40), 20));
  turn();
  submit(job(2, tokens_from(2, 29), 1));  // 41 + 29 + 10 = 80 would fit one token earlier.
  turn();
  EXPECT_EQ(story(2).started.size(), 1U);
  submit(job(3, tokens_from(3, 29), 1));
  turn();
  EXPECT_TRUE(story(3).started.empty());
  EXPECT_EQ(loop_->stats().waiting, 1U);
  drain();
  expect_done(3, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, WaitingRequestsStartInTheirOrder) {
  make({.sequences = 1});
  for (std::uint32_t id = 1; id <= 5; ++id) {
    submit(job(id, tokens_from(static_cast<Token>(id), 10), 3));
  }
  turn();
  EXPECT_EQ(loop_->stats().running, 1U);
  EXPECT_EQ(loop_->stats().waiting, 4U);
  drain();
  EXPECT_EQ(events_.started_order, (std::vector<std::uint32_t>{1, 2, 3, 4, 5}));
}

TEST_F(BatchLoopTest, MoreThanWaitingMaxIsRefusedAndChangesNothing) {
  make({.sequences = 1, .waiting_max = 2});
  submit(job(1, tokens_from(1, 10), 50));
  turn();  // The first runs now and waits no longer.
  submit(job(2, tokens_from(2, 10), 1));
  turn();
  submit(job(3, tokens_from(3, 10), 1));
  const Result<void> refused = loop_->submit(job(4, tokens_from(4, 10), 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_EQ(loop_->stats().waiting, 2U);
  drain();
  EXPECT_FALSE(events_.stories.contains(4));
  EXPECT_TRUE(loop_->submit(job(5, tokens_from(5, 10), 1)));
}

TEST_F(BatchLoopTest, ACancelWhileWaitingEndsItBeforeItStarts) {
  make({.sequences = 1});
  submit(job(1, tokens_from(1, 10), 5));
  submit(job(2, tokens_from(2, 10), 5));
  turn();
  loop_->cancel(2);
  turn();
  expect_ended_silently(2);
  EXPECT_TRUE(story(2).started.empty());
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
  drain();
  EXPECT_EQ(engine_->clear_cache_calls, 2U);
}

TEST_F(BatchLoopTest, ACancelInTheTurnOfItsRequestStillMeetsIt) {
  submit(job(1, tokens_from(1, 10), 5));
  loop_->cancel(1);
  drain();
  expect_ended_silently(1);
  EXPECT_TRUE(engine_->steps.empty());
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
}

TEST_F(BatchLoopTest, ACancelDuringThePromptKeepsWhatIsComputed) {
  submit(job(1, tokens_from(1, 200), 5));
  turns(2);
  loop_->cancel(1);
  EXPECT_FALSE(turn());
  expect_ended_silently(1);
  EXPECT_EQ(story(1).text, "");
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
  run_alone(job(2, tokens_from(1, 200), 5));
  EXPECT_EQ(cached(2), 128U) << "two steps of 64";
}

TEST_F(BatchLoopTest, ACancelDuringTheAnswerTakesEffectInTheNextTurn) {
  const Job request = job(1, tokens_from(1, 20), 500);
  submit(request);
  turns(5);
  loop_->cancel(1);
  const std::size_t steps = engine_->steps.size();
  EXPECT_FALSE(turn());
  EXPECT_EQ(engine_->steps.size(), steps);
  expect_ended_silently(1);
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
  loop_->cancel(1);
  turn();
  EXPECT_EQ(story(1).ended, 1);
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
}

TEST_F(BatchLoopTest, ACancelOfARequestThatGaveUpItsCellsEndsIt) {
  make({.cells = 100});
  submit(job(1, tokens_from(1, 40), 30));
  submit(job(2, tokens_from(2, 20), 35));
  turn();
  while (loop_->stats().waiting == 0) ASSERT_TRUE(turn());
  loop_->cancel(2);
  drain();
  expect_ended_silently(2);
  expect_done(1, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, ARefusedRequestIsNeverAcceptedAndTakesNothing) {
  events_.memory = [](const auto&) { return Refused{memory::Level::kCritical, 700_MiB}; };
  run_alone(job(1, tokens_from(1, 20), 5));
  EXPECT_FALSE(story(1).accepted);
  EXPECT_TRUE(story(1).started.empty());
  ASSERT_EQ(story(1).refused.size(), 1U);
  EXPECT_EQ(story(1).refused.front().level, memory::Level::kCritical);
  EXPECT_EQ(story(1).refused.front().available, 700_MiB);
  EXPECT_EQ(story(1).ended, 1);
  EXPECT_TRUE(engine_->steps.empty());
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
}

TEST_F(BatchLoopTest, FreeingMemoryDropsIdleSequencesAndNoRunningOne) {
  run_alone(job(1, tokens_from(1, 50), 1));
  const Job running = job(2, tokens_from(2, 50), 30);
  submit(running);
  turns(5);
  std::size_t held_after = 0;
  events_.memory = [&](const auto& free_memory) {
    free_memory();
    held_after = engine_->tokens_held();
    return std::optional<Refused>();
  };
  submit(job(3, tokens_from(1, 50), 1));
  turn();
  EXPECT_EQ(held_after, engine_->tokens_of(1).size() - 1) << "less the token of this turn's step";
  EXPECT_EQ(cached(3), 0U);
  drain();
  EXPECT_EQ(story(2).text, alone(running).text);
  expect_done(3, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, ClearCacheDropsIdleSequencesKeepsRunningOnesAndSaysHowMuch) {
  run_alone(job(1, tokens_from(1, 50), 1));
  run_alone(job(2, tokens_from(2, 30), 1));
  const Job running = job(3, tokens_from(3, 50), 30);
  submit(running);
  turns(5);
  const std::uint32_t clears_before = engine_->clear_cache_calls;
  loop_->clear_cache(77);
  turn();
  ASSERT_TRUE(events_.clears.contains(77));
  EXPECT_EQ(events_.clears[77].dropped_tokens, 80U);
  EXPECT_EQ(events_.clears[77].freed, 7_MiB);
  EXPECT_EQ(engine_->clear_cache_calls, clears_before + 1);
  EXPECT_EQ(engine_->release_buffers_calls, 0U) << "somebody runs in them";
  drain();
  EXPECT_EQ(story(3).text, alone(running).text);
  EXPECT_EQ(events_.ends, 3U) << "a clearing is no request";
}

TEST_F(BatchLoopTest, WhereNothingRunsAClearingGivesTheBuffersBackAsWell) {
  run_alone(job(1, tokens_from(1, 50), 1));
  loop_->clear_cache(77);
  turn();
  EXPECT_EQ(engine_->release_buffers_calls, 1U);
  EXPECT_EQ(events_.clears[77].dropped_tokens, 50U);
  EXPECT_EQ(engine_->tokens_held(), 0U);
  const Job next = job(2, tokens_from(1, 50), 3);
  run_alone(next);
  EXPECT_EQ(cached(2), 0U);
  EXPECT_EQ(story(2).text, alone(next).text);
}

TEST_F(BatchLoopTest, ARequestThatTheEngineCannotSampleForFailsAloneAndTheNextIsServed) {
  engine_->sampling_error = Error{Code::kInvalidArgument, "no such sampler"};
  run_alone(job(1, tokens_from(1, 20), 5));
  EXPECT_TRUE(story(1).accepted);
  ASSERT_EQ(story(1).failed.size(), 1U);
  EXPECT_EQ(story(1).failed.front().code, Code::kInvalidArgument);
  EXPECT_EQ(story(1).failed.front().message, "no such sampler");
  EXPECT_EQ(story(1).ended, 1);
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
  engine_->sampling_error.reset();
  run_alone(job(2, tokens_from(2, 20), 5));
  expect_done(2, StopCause::kTokenLimit);
  EXPECT_EQ(engine_->clear_cache_calls, 2U);
}

TEST_F(BatchLoopTest, TheEnginesCacheIsClearedOnceAfterEachRequestBeforeItIsOver) {
  std::vector<std::uint32_t> calls_when_ended;
  events_.on_ended = [&](std::uint32_t) { calls_when_ended.push_back(engine_->clear_cache_calls); };
  submit(job(1, tokens_from(1, 20), 5));
  submit(job(2, tokens_from(2, 20), 9));
  turns(3);
  loop_->cancel(2);
  drain();
  run_alone(job(3, tokens_from(3, 20), 1));
  EXPECT_EQ(calls_when_ended, (std::vector<std::uint32_t>{1, 2, 3}));
}

}  // namespace
}  // namespace pensieve::worker
