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

  void begin(std::uint32_t seed, bool elastic) {
    random_.seed(seed);
    jobs_.clear();
    cancelled_.clear();
    clear_commands_ = 0;
    refusing_ = false;
    orders_ = 0;
    const std::uint32_t sequences = pick(1, 6);
    const std::uint32_t window = pick(60, 400);
    cells_granted_ = elastic ? pick(20, window) : window;
    cells_max_ = elastic ? pick(window, 2 * window) : window;
    make({.cells = cells_granted_,
          .sequences = sequences,
          .step_tokens = pick(sequences + 1, 128),
          .waiting_max = pick(4, 30),
          .window = window,
          .cells_max = cells_max_});
    need_.reset();
    events_.on_need = [this](const NeedCells& need) { need_ = need; };
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
    clock_.advance(std::chrono::milliseconds(pick(0, 40)));
    loop_->look_again();
  }

  /// A gateway with whims: grants what is asked or less or more, refuses, says nothing, orders to
  /// shrink, sets limits; sometimes the engine has no memory for what was granted.
  void act_as_gateway() {
    if (need_ && pick(0, 2) == 0) {
      ASSERT_LE(need_->cells_wanted, cells_max_);
      ASSERT_GT(need_->cells_wanted, need_->cells_now);
      if (pick(0, 1) == 0) {
        order_cells(pick(need_->cells_now + 1, need_->cells_wanted + 20));
      } else {
        loop_->refuse_cells({memory::Level::kWarning, 1_GiB, "a whim"});
      }
      need_.reset();
    }
    if (pick(0, 79) == 0) order_cells(pick(1, cells_max_));
    if (pick(0, 19) == 0) {
      engine_->resize_error.reset();
      if (pick(0, 4) == 0) engine_->resize_error = Error{Code::kOutOfMemory, "no memory"};
    }
    if (pick(0, 59) == 0) {
      loop_->set_limits({.sequences_max = pick(0, 6),
                         .step_tokens_max = pick(0, 128),
                         .caches_grow = pick(0, 1) == 0,
                         .parked_bytes_max = {},
                         .stored_bytes_max = {}});
    }
  }
  void order_cells(std::uint32_t cells) {
    loop_->resize(cells);
    ++orders_;
    // What is there stays allowed until the worker has said that it is less.
    cells_granted_ = std::max(cells_granted_, cells);
  }
  void expect_cells_within_the_grant() {
    ASSERT_LE(engine_->cells(), cells_granted_);
    ASSERT_LE(engine_->cells_used(), engine_->cells());
    ASSERT_EQ(events_.resizes.size(), orders_) << "one answer for each order";
    if (!events_.resizes.empty()) {
      ASSERT_EQ(events_.resizes.back().cells, engine_->cells());
      cells_granted_ = events_.resizes.back().cells;
    }
  }

  void expect_invariants() {
    const BatchLoop::Stats stats = loop_->stats();
    ASSERT_EQ(stats.cached_tokens, engine_->tokens_held());
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
    ASSERT_TRUE(told.accepted) << "request " << request.id;
    ASSERT_EQ(told.text, whole.text) << "request " << request.id;
    ASSERT_EQ(told.done.front().cause, whole.cause) << "request " << request.id;
    ASSERT_EQ(told.done.front().output_tokens, whole.output_tokens) << "request " << request.id;
  }

  std::mt19937 random_;
  std::map<std::uint32_t, Job> jobs_;
  std::set<std::uint32_t> cancelled_;
  std::uint32_t clear_commands_ = 0;  // And what a refusal frees.
  bool refusing_ = false;
  std::optional<NeedCells> need_;
  std::uint32_t cells_granted_ = 0;
  std::uint32_t cells_max_ = 0;
  std::size_t orders_ = 0;
};

TEST_F(BatchLoopPropertyTest, EveryRequestEndsOnceWithTheTextThatItHasAlone) {
  std::size_t done = 0;
  std::uint32_t out_of_cells = 0;
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    begin(seed, false);
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

TEST_F(BatchLoopPropertyTest, UnderRandomGrantsRefusalsAndShrinksTheSameHolds) {
  std::size_t done = 0;
  std::size_t refused = 0;
  std::size_t resized = 0;
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    begin(seed, true);
    for (int i = 0; i < 600; ++i) {
      act();
      act_as_gateway();
      turn();
      expect_invariants();
      expect_cells_within_the_grant();
      if (HasFatalFailure()) return;
    }
    // From here on the gateway is silent: everybody comes to an end all the same.
    engine_->resize_error.reset();
    for (int waits = 0; loop_->stats().running + loop_->stats().waiting > 0; ++waits) {
      ASSERT_LT(waits, 200) << "somebody waits for ever";
      drain();
      clock_.advance(std::chrono::seconds(1));
    }
    expect_invariants();
    for (const auto& [id, request] : jobs_) {
      expect_story(request);
      if (HasFatalFailure()) return;
      refused += story(id).refused.size();
    }
    done += events_.done_order.size();
    resized += engine_->resizes.size();
  }
  EXPECT_GT(done, 500U);
  EXPECT_GT(refused, 20U);
  EXPECT_GT(resized, 100U);
}

}  // namespace
}  // namespace pensieve::worker
