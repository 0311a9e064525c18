// What a gateway may order between two steps: fewer requests at once, smaller chunks of prompts.
#include "worker/batch_loop.h"
#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

Limits limits(std::uint32_t sequences, std::uint32_t step_tokens, bool caches_grow = true) {
  return {.sequences_max = sequences,
          .step_tokens_max = step_tokens,
          .caches_grow = caches_grow,
          .parked_bytes_max = {},
          .stored_bytes_max = {}};
}

TEST_F(BatchLoopTest, WithFewerSequencesRunningRequestsGoOnAndNewcomersWait) {
  for (std::uint32_t id = 1; id <= 3; ++id) {
    submit(job(id, tokens_from(static_cast<engine::Token>(id), 10), id == 3 ? 40 : 20));
  }
  turns(3);
  loop_->set_limits(limits(1, 256));
  submit(job(4, tokens_from(4, 10), 5));
  turn();
  EXPECT_EQ(loop_->stats().running, 3U);
  while (story(3).done.empty()) {
    ASSERT_TRUE(turn());
    EXPECT_TRUE(story(4).started.empty()) << "one runs, and one may";
  }
  EXPECT_EQ(story(1).done.size() + story(2).done.size(), 2U);
  drain();
  expect_done(4, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, MoreSequencesLetThoseThatWaitStartAtTheNextStep) {
  loop_->set_limits(limits(1, 256));
  submit(job(1, tokens_from(1, 10), 20));
  submit(job(2, tokens_from(2, 10), 20));
  turns(2);
  EXPECT_EQ(loop_->stats().running, 1U);
  loop_->set_limits(limits(99, 256));  // Bounded by what the engine has.
  turn();
  EXPECT_EQ(loop_->stats().running, 2U);
  drain();
}

TEST_F(BatchLoopTest, EvenWithALimitOfNoneOneRequestRuns) {
  loop_->set_limits(limits(0, 0));
  const Job request = job(1, tokens_from(1, 10), 5);
  run_alone(request);
  expect_done(1, StopCause::kTokenLimit);
  EXPECT_EQ(story(1).text, alone(request).text);
  for (const auto& step : engine_->steps) EXPECT_EQ(step.front().tokens, 1U);
}

TEST_F(BatchLoopTest, ACapOnTheChunkBoundsThePromptTokensOfAStepAndNotTheDecoding) {
  submit(job(1, tokens_from(1, 10), 30));
  submit(job(2, tokens_from(2, 10), 30));
  turns(2);
  loop_->set_limits(limits(4, 5));
  submit(job(3, tokens_from(3, 12), 1));
  turn();
  EXPECT_EQ(engine_->steps.back().size(), 3U);
  EXPECT_EQ(engine_->steps.back()[2].tokens, 5U);
  turns(2);
  EXPECT_EQ(engine_->steps.back()[2].tokens, 2U);
  EXPECT_TRUE(engine_->steps.back()[2].samples);
  loop_->set_limits(limits(4, 256));
  submit(job(4, tokens_from(4, 12), 1));
  turn();
  EXPECT_EQ(engine_->steps.back()[2].tokens, 12U);
  drain();
}

}  // namespace
}  // namespace pensieve::worker
