// Thousands of random turns against what must hold after each of them. A failure prints the seed.
#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "worker/batch_loop.h"
#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

using engine::Token;

class BatchLoopPropertyTest : public BatchLoopTest {
 protected:
  std::uint32_t pick(std::uint32_t least, std::uint32_t most) {
    return std::uniform_int_distribution<std::uint32_t>(least, most)(random_);
  }

  void begin(std::uint32_t seed) {
    random_.seed(seed);
    jobs_.clear();
    cancelled_.clear();
    clear_commands_ = 0;
    refusing_ = false;
    const std::uint32_t sequences = pick(1, 6);
    make({.cells = pick(60, 400),
          .sequences = sequences,
          .step_tokens = pick(sequences + 1, 128),
          .waiting_max = pick(4, 30)});
    engine_->can_share = pick(0, 2) > 0;
    if (pick(0, 2) == 0) engine_->prefix_granularity = pick(2, 20);
    engine_->next_token = [](const std::vector<Token>& tokens) {
      const Token token = FakeEngine::hashed_token(tokens);
      return token % 40 == 0 ? FakeEngine::kEnd : token;
    };
    engine_->during_step = [&](std::size_t tokens) {
      clock_.advance(std::chrono::microseconds(500 * tokens));
    };
    events_.memory = [&](const auto& free_memory) -> std::optional<Refused> {
      if (!refusing_) return std::nullopt;
      free_memory();
      ++clear_commands_;
      return Refused{memory::Level::kEmergency, 1_MiB};
    };
  }

  /// Begins like one of three conversations, more or less far, and then goes its own way.
  Job random_job(std::uint32_t id) {
    const std::uint32_t most = window_ - 1;
    std::vector<Token> prompt =
        tokens_from(static_cast<Token>(pick(1, 3)), pick(0, std::min(most - 1, 120U)));
    const std::vector<Token> own = tokens_from(
        static_cast<Token>(10 + id % 1000),
        pick(1, std::min<std::uint32_t>(40, most - static_cast<std::uint32_t>(prompt.size()))));
    prompt.insert(prompt.end(), own.begin(), own.end());
    Job request = job(id, std::move(prompt), pick(1, 60));
    if (pick(0, 3) == 0) request.stop_sequences = {std::to_string(pick(10, 99))};
    return request;
  }

  void act() {
    const auto next = static_cast<std::uint32_t>(jobs_.size() + 1);
    if (pick(0, 9) < 3) {
      const Job request = random_job(next);
      if (loop_->submit(request)) jobs_[next] = request;
    }
    if (!jobs_.empty() && pick(0, 19) == 0) {
      const std::uint32_t id = pick(1, static_cast<std::uint32_t>(jobs_.size()));
      loop_->cancel(id);
      cancelled_.insert(id);
    }
    if (pick(0, 99) == 0) {
      loop_->clear_cache(next);
      ++clear_commands_;
    }
    if (pick(0, 49) == 0) refusing_ = !refusing_;
  }

  void expect_invariants() {
    const BatchLoop::Stats stats = loop_->stats();
    ASSERT_EQ(stats.cached_tokens, engine_->tokens_held());
    ASSERT_LE(engine_->cells_used(), window_);
    ASSERT_EQ(engine_->clear_cache_calls, events_.ends + clear_commands_);
    ASSERT_EQ(stats.running + stats.waiting + events_.ends, jobs_.size());
  }

  void expect_story(const Job& request) {
    const RecordedEvents::Story& told = story(request.id);
    ASSERT_EQ(told.ended, 1) << "request " << request.id;
    ASSERT_FALSE(told.late) << "request " << request.id;
    ASSERT_LE(told.started.size(), 1U);
    if (!told.started.empty()) {
      ASSERT_LT(told.started.front().cached_tokens, request.prompt.size());
    }
    const AnswerAlone whole = alone(request);
    ASSERT_TRUE(whole.text.starts_with(told.text)) << "request " << request.id;
    if (told.verdicts() == 0) {
      ASSERT_TRUE(cancelled_.contains(request.id)) << "request " << request.id;
      return;
    }
    ASSERT_EQ(told.verdicts(), 1U) << "request " << request.id;
    if (told.done.empty()) return;
    ASSERT_EQ(told.text, whole.text) << "request " << request.id;
    ASSERT_EQ(told.done.front().cause, whole.cause) << "request " << request.id;
    ASSERT_EQ(told.done.front().output_tokens, whole.output_tokens) << "request " << request.id;
  }

  std::mt19937 random_;
  std::map<std::uint32_t, Job> jobs_;
  std::set<std::uint32_t> cancelled_;
  std::uint32_t clear_commands_ = 0;  // And what a refusal frees.
  bool refusing_ = false;
};

TEST_F(BatchLoopPropertyTest, EveryRequestEndsOnceWithTheTextThatItHasAlone) {
  std::size_t done = 0;
  std::uint32_t out_of_cells = 0;
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    begin(seed);
    for (int i = 0; i < 600; ++i) {
      act();
      turn();
      expect_invariants();
      if (HasFatalFailure()) return;
    }
    drain();
    expect_invariants();
    for (const auto& [id, request] : jobs_) {
      expect_story(request);
      if (HasFatalFailure()) return;
    }
    done += events_.done_order.size();
    out_of_cells += engine_->refused_steps;
  }
  // The seeds really reach what they are for.
  EXPECT_GT(done, 300U);
  EXPECT_GT(out_of_cells, 50U);
}

}  // namespace
}  // namespace pensieve::worker
