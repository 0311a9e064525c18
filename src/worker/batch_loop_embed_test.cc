// Embeddings in the batch loop: one input a turn, beside everything else.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

class BatchLoopEmbedTest : public BatchLoopTest {
 protected:
  void embed(std::uint32_t id, std::vector<engine::Token> tokens) {
    ASSERT_TRUE(loop_->embed({id, std::move(tokens)}));
  }
};

TEST_F(BatchLoopEmbedTest, AVectorComesWithItsTokensAndTheCacheIsCleared) {
  embed(1, {7, 8, 9});
  drain();
  ASSERT_EQ(story(1).embedded.size(), 1U);
  EXPECT_EQ(story(1).embedded[0].input_tokens, 3U);
  EXPECT_EQ(story(1).embedded[0].embedding, (std::vector{7.0F, 3.0F}));
  EXPECT_EQ(story(1).verdicts(), 1U);
  EXPECT_EQ(story(1).ended, 1);
  EXPECT_EQ(engine_->clear_cache_calls, 1U);
  EXPECT_FALSE(loop_->stats().busy);
}

TEST_F(BatchLoopEmbedTest, OneInputATurnBesideTheStepsOfOthers) {
  submit(job(1, tokens_from(1, 3), 10));
  embed(2, {5});
  embed(3, {6});
  EXPECT_EQ(loop_->stats().waiting, 3U);
  EXPECT_TRUE(turn());
  EXPECT_EQ(story(2).embedded.size(), 1U);
  EXPECT_TRUE(story(3).embedded.empty());
  EXPECT_EQ(engine_->steps.size(), 1U);
  EXPECT_TRUE(turn());
  EXPECT_EQ(story(3).embedded.size(), 1U);
  EXPECT_EQ(engine_->steps.size(), 2U);
  drain();
  expect_done(1, StopCause::kTokenLimit);
}

TEST_F(BatchLoopEmbedTest, TheSecondMemoryCheckMayRefuseAnInput) {
  bool is_short = true;
  events_.memory = [&](const std::function<void()>& free_memory) -> std::optional<Refused> {
    if (!is_short) return std::nullopt;
    free_memory();
    return Refused{memory::Level::kEmergency, Bytes(1), {}};
  };
  embed(1, {5});
  drain();
  EXPECT_EQ(story(1).refused.size(), 1U);
  EXPECT_EQ(story(1).verdicts(), 1U);
  EXPECT_EQ(engine_->release_buffers_calls, 1U);
  is_short = false;
  embed(2, {5});
  drain();
  EXPECT_EQ(story(2).embedded.size(), 1U);
}

TEST_F(BatchLoopEmbedTest, ACancelledInputIsNotComputed) {
  embed(1, {5});
  embed(2, {6});
  loop_->cancel(2);
  drain();
  EXPECT_EQ(story(1).embedded.size(), 1U);
  expect_ended_silently(2);
  EXPECT_EQ(loop_->stats().waiting, 0U);
}

TEST_F(BatchLoopEmbedTest, AnInputThatHasNoVectorFailsAloneAndOtherErrorsEndTheLoop) {
  engine_->embed_error = Error{Code::kInvalidArgument, "no such token"};
  embed(1, {5});
  drain();
  ASSERT_EQ(story(1).failed.size(), 1U);
  EXPECT_EQ(story(1).failed[0].message, "no such token");
  EXPECT_EQ(story(1).ended, 1);
  engine_->embed_error = Error{Code::kInternal, "broken"};
  embed(2, {5});
  EXPECT_EQ(loop_->turn().error().code, Code::kInternal);
}

TEST_F(BatchLoopEmbedTest, InputsWaitWithinTheSameBoundAsRequests) {
  make({.waiting_max = 2});
  submit(job(1, tokens_from(1, 3), 1));
  embed(2, {5});
  EXPECT_EQ(loop_->embed({3, {5}}).error().code, Code::kUnavailable);
  EXPECT_EQ(loop_->submit(job(4, tokens_from(1, 3), 1)).error().code, Code::kUnavailable);
  drain();
  embed(5, {5});
  drain();
  EXPECT_EQ(story(5).embedded.size(), 1U);
}

}  // namespace
}  // namespace pensieve::worker
