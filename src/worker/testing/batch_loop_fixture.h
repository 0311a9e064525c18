#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"
#include "worker/batch_loop.h"
#include "worker/testing/fake_engine.h"
#include "worker/testing/recorded_events.h"

namespace pensieve::worker {

/// What a request must say, whoever else runs: computed without loop, cells or sequences.
struct AnswerAlone {
  std::vector<engine::Token> tokens;  // Prompt and answer.
  std::string text;
  StopCause cause = StopCause::kEndOfTurn;
  std::uint32_t output_tokens = 0;
};

inline AnswerAlone answer_alone(const FakeEngine& engine, const Job& job,
                                std::uint32_t context_tokens) {
  AnswerAlone answer{.tokens = job.prompt, .text = {}};
  while (true) {
    const engine::Token token = engine.next_token(answer.tokens);
    if (token == FakeEngine::kEnd) return answer;
    answer.tokens.push_back(token);
    answer.text += engine.piece(token);
    ++answer.output_tokens;
    for (const std::string& stop : job.stop_sequences) {
      const std::size_t at = answer.text.find(stop);
      if (at == std::string::npos) continue;
      answer.text.resize(at);
      answer.cause = StopCause::kStopSequence;
      return answer;
    }
    if (answer.output_tokens >= job.output_tokens_max) {
      answer.cause = StopCause::kTokenLimit;
      return answer;
    }
    if (answer.tokens.size() >= context_tokens) {
      answer.cause = StopCause::kWindowFull;
      return answer;
    }
  }
}

/// A loop over a FakeEngine that the test turns by hand; made anew by make().
class BatchLoopTest : public testing::Test {
 protected:
  struct Setup {
    std::uint32_t cells = 1000;
    std::uint32_t sequences = 4;
    std::uint32_t step_tokens = 256;
    std::uint32_t waiting_max = 256;
    std::uint32_t window = 0;     // 0: as many as there are cells.
    std::uint32_t cells_max = 0;  // 0: as many as there are at first.
  };

  BatchLoopTest() { make({}); }

  void make(const Setup& setup) {
    loop_.reset();
    events_ = RecordedEvents();
    window_ = setup.window > 0 ? setup.window : setup.cells;
    engine_ = std::make_unique<FakeEngine>(setup.cells, setup.sequences);
    loop_ = std::make_unique<BatchLoop>(*engine_, events_, clock_,
                                        BatchLoop::Options{.sequences_max = setup.sequences,
                                                           .context_tokens = window_,
                                                           .cells_max = setup.cells_max,
                                                           .step_tokens_max = setup.step_tokens,
                                                           .waiting_max = setup.waiting_max});
  }

  /// `count` tokens that no prompt with another `first` shares.
  static std::vector<engine::Token> tokens_from(engine::Token first, std::size_t count) {
    std::vector<engine::Token> tokens(count);
    std::iota(tokens.begin(), tokens.end(), first * 100'000);
    return tokens;
  }
  static Job job(std::uint32_t id, std::vector<engine::Token> prompt, std::uint32_t output_max) {
    return {.id = id,
            .prompt = std::move(prompt),
            .output_tokens_max = output_max,
            .stop_sequences = {},
            .sampling = {}};
  }

  void submit(const Job& job) { ASSERT_TRUE(loop_->submit(job)); }

  /// One turn; returns whether there is more to do.
  bool turn() {
    const Result<bool> worked = loop_->turn();
    EXPECT_TRUE(worked) << worked.error().message;
    EXPECT_EQ(loop_->stats().cached_tokens, engine_->tokens_held());
    return worked && *worked;
  }
  void turns(int count) {
    for (int i = 0; i < count; ++i) turn();
  }
  /// Turns until nothing is left to do.
  void drain() {
    int left = 100'000;
    // Busy without having worked: a command came in during the turn.
    while (turn() || loop_->stats().busy) ASSERT_GT(--left, 0) << "the loop never comes to rest";
  }
  void run_alone(const Job& job) {
    submit(job);
    drain();
  }

  const RecordedEvents::Story& story(std::uint32_t id) { return events_.stories[id]; }
  AnswerAlone alone(const Job& job) const { return answer_alone(*engine_, job, window_); }
  std::uint32_t cached(std::uint32_t id) {
    EXPECT_EQ(story(id).started.size(), 1U);
    return story(id).started.empty() ? 0 : story(id).started.front().cached_tokens;
  }
  void expect_done(std::uint32_t id, StopCause cause) {
    ASSERT_EQ(story(id).done.size(), 1U) << "request " << id;
    EXPECT_EQ(story(id).done.front().cause, cause) << "request " << id;
    EXPECT_EQ(story(id).verdicts(), 1U) << "request " << id;
    EXPECT_EQ(story(id).ended, 1) << "request " << id;
    EXPECT_FALSE(story(id).late) << "request " << id;
  }
  void expect_ended_silently(std::uint32_t id) {
    EXPECT_EQ(story(id).verdicts(), 0U) << "request " << id;
    EXPECT_EQ(story(id).ended, 1) << "request " << id;
    EXPECT_FALSE(story(id).late) << "request " << id;
  }

  std::uint32_t window_ = 0;
  FakeClock clock_;
  RecordedEvents events_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<BatchLoop> loop_;
};

}  // namespace pensieve::worker
