// The batch loop with a prefix store: what leaves the KV cache comes back, and answers stay right.
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "worker/batch_loop.h"
#include "worker/testing/batch_loop_fixture.h"
#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;

class BatchLoopPrefixTest : public PrefixStoreTest {
 protected:
  BatchLoopPrefixTest() { restart({}); }

  struct Setup {
    std::uint32_t cells = 2000;
    std::uint32_t sequences = 4;
  };
  /// Everything anew but the folder: what another process finds.
  void restart(const Setup& setup) {
    loop_.reset();
    exchange_.reset();
    store_.reset();
    events_ = RecordedEvents();
    cells_ = setup.cells;
    engine_ = std::make_unique<FakeEngine>(setup.cells, setup.sequences);
    store_ = make_store();
    exchange_ = std::make_unique<PrefixExchange>(*engine_, *store_, clock_);
    loop_ = std::make_unique<BatchLoop>(*engine_, events_, clock_,
                                        BatchLoop::Options{.sequences_max = setup.sequences,
                                                           .context_tokens = setup.cells,
                                                           .cells_max = 0,
                                                           .step_tokens_max = 256,
                                                           .waiting_max = 256},
                                        store_.get(), exchange_.get());
  }

  static Job job(std::uint32_t id, std::vector<Token> prompt, std::uint32_t output_max = 8) {
    return {.id = id,
            .prompt = std::move(prompt),
            .output_tokens_max = output_max,
            .stop_sequences = {},
            .sampling = {}};
  }
  bool turn() {
    const Result<bool> worked = loop_->turn();
    EXPECT_TRUE(worked) << worked.error().message;
    EXPECT_EQ(loop_->stats().cached_tokens, engine_->tokens_held());
    return worked && *worked;
  }
  void submit(const Job& next) { ASSERT_TRUE(loop_->submit(next)); }
  /// Turns until the request has ended; a file that it waits for is waited for.
  void finish(std::uint32_t id) {
    for (int left = 10'000; events_.stories[id].ended == 0; --left) {
      ASSERT_GT(left, 0) << "request " << id << " never ends";
      if (!turn()) settle(*store_);
    }
  }
  void run_alone(const Job& next) {
    submit(next);
    finish(next.id);
    const RecordedEvents::Story& story = events_.stories[next.id];
    ASSERT_EQ(story.done.size(), 1U);
    EXPECT_EQ(story.text, answer_alone(*engine_, next, cells_).text) << "request " << next.id;
  }
  std::uint32_t cached(std::uint32_t id) {
    const auto& started = events_.stories[id].started;
    EXPECT_EQ(started.size(), 1U);
    return started.empty() ? 0 : started.front().cached_tokens;
  }
  /// The next turn of the conversation that `prompt` began, whose answer was `answered` tokens.
  std::vector<Token> next_turn(std::vector<Token> prompt) {
    const AnswerAlone answer = answer_alone(*engine_, job(0, prompt), cells_);
    prompt = answer.tokens;
    const std::vector<Token> question = prefix_tokens(50, 20);
    prompt.insert(prompt.end(), question.begin(), question.end());
    return prompt;
  }

  std::uint32_t cells_ = 0;
  RecordedEvents events_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<PrefixStore> store_;
  std::unique_ptr<PrefixExchange> exchange_;
  std::unique_ptr<BatchLoop> loop_;
};

TEST_F(BatchLoopPrefixTest, WhatHadToMakeRoomComesBackFromMemory) {
  restart({.cells = 1000, .sequences = 2});
  const std::vector<Token> first = prefix_tokens(1, 400);
  run_alone(job(1, first));
  run_alone(job(2, prefix_tokens(2, 400)));
  run_alone(job(3, prefix_tokens(3, 400)));
  EXPECT_GE(store_->stats().parked, 1U);
  run_alone(job(4, next_turn(first)));
  // All but the last token of the answer, which was never processed.
  EXPECT_EQ(cached(4), 400U + 7U);
  EXPECT_EQ(store_->stats().hits, 1U);
}

TEST_F(BatchLoopPrefixTest, AConversationSurvivesTheProcess) {
  const std::vector<Token> first = prefix_tokens(1, 400);
  run_alone(job(1, first));
  while (loop_->store_one()) {
  }
  settle(*store_);
  restart({});
  const std::vector<Token> second = next_turn(first);
  run_alone(job(2, second));
  EXPECT_EQ(cached(2), 400U + 7U);
}

TEST_F(BatchLoopPrefixTest, WhoWaitsForAFileHoldsUpNobodyElse) {
  const std::vector<Token> first = prefix_tokens(1, 400);
  run_alone(job(1, first));
  while (loop_->store_one()) {
  }
  settle(*store_);
  restart({});
  submit(job(2, next_turn(first)));
  submit(job(3, prefix_tokens(3, 100)));
  turn();
  EXPECT_EQ(events_.stories[3].started.size(), 1U);
  finish(3);
  finish(2);
  EXPECT_EQ(cached(2), 400U + 7U);
}

TEST_F(BatchLoopPrefixTest, IdleSequencesLeaveTheCacheWhileOthersRun) {
  const std::vector<Token> first = prefix_tokens(1, 400);
  run_alone(job(1, first));
  run_alone(job(2, prefix_tokens(2, 40)));
  submit(job(3, prefix_tokens(3, 100), 50));
  turn();
  clock_.advance(Sequences::kParkIdleAfter - Duration(1));
  turn();
  EXPECT_EQ(store_->stats().parked, 0U);
  EXPECT_GT(engine_->tokens_of(0).size(), 400U);
  clock_.advance(Sequences::kLookEvery);
  turn();
  EXPECT_EQ(store_->stats().parked, 1U);
  EXPECT_TRUE(engine_->tokens_of(0).empty());
  EXPECT_FALSE(engine_->tokens_of(1).empty()) << "too short to be worth it";
  finish(3);
  run_alone(job(4, next_turn(first)));
  EXPECT_EQ(cached(4), 400U + 7U);
}

TEST_F(BatchLoopPrefixTest, IdleSequencesStayInTheCacheWhereThereIsNoRoomElsewhere) {
  store_->set_budgets(Bytes(), Bytes());
  run_alone(job(1, prefix_tokens(1, 400)));
  submit(job(2, prefix_tokens(2, 100), 50));
  turn();
  clock_.advance(Sequences::kParkIdleAfter);
  turn();
  EXPECT_GT(engine_->tokens_of(0).size(), 400U);
  finish(2);
}

TEST_F(BatchLoopPrefixTest, WhatRestsIsWrittenToDiskAndStaysInTheCache) {
  run_alone(job(1, prefix_tokens(1, 400)));
  EXPECT_TRUE(loop_->stats().is_restless);
  clock_.advance(PrefixStore::kRest - Duration(1));
  turn();
  settle(*store_);
  EXPECT_TRUE(files_in(folder()).empty());
  clock_.advance(std::chrono::seconds(1));
  turn();
  settle(*store_);
  EXPECT_EQ(files_in(folder()).size(), 1U);
  EXPECT_EQ(store_->stats().parked_bytes, Bytes());
  EXPECT_EQ(engine_->tokens_of(0).size(), 407U);
  EXPECT_FALSE(loop_->stats().is_restless);
}

TEST_F(BatchLoopPrefixTest, ARequestThatGaveUpItsCellsGoesOnFromItsParkedState) {
  restart({.cells = 700, .sequences = 2});
  const Job old_one = job(1, prefix_tokens(1, 300), 200);
  const Job new_one = job(2, prefix_tokens(2, 200), 60);
  submit(old_one);
  submit(new_one);
  finish(1);
  finish(2);
  for (const Job& each : {old_one, new_one}) {
    EXPECT_EQ(events_.stories[each.id].text, answer_alone(*engine_, each, cells_).text);
  }
}

TEST_F(BatchLoopPrefixTest, ClearingForgetsWhatIsParkedToo) {
  restart({.cells = 1000, .sequences = 2});
  run_alone(job(1, prefix_tokens(1, 400)));
  run_alone(job(2, prefix_tokens(2, 400)));
  run_alone(job(3, prefix_tokens(3, 400)));
  store_all(*store_);
  const std::uint32_t in_cache = loop_->stats().cached_tokens;
  loop_->clear_cache(9);
  turn();
  EXPECT_GT(events_.clears[9].dropped_tokens, in_cache);
  EXPECT_EQ(events_.clears[9].stored, Bytes());
  EXPECT_EQ(store_->stats().parked, 0U);
  EXPECT_EQ(engine_->tokens_held(), 0U);
  EXPECT_FALSE(files_in(folder()).empty());
  loop_->clear_cache(10, true);
  turn();
  settle(*store_);
  EXPECT_GT(events_.clears[10].stored, Bytes());
  EXPECT_TRUE(files_in(folder()).empty());
}

TEST_F(BatchLoopPrefixTest, ARefusalForMemoryForgetsWhatIsParked) {
  restart({.cells = 1000, .sequences = 2});
  for (const Token first : {1, 2, 3}) {
    run_alone(job(static_cast<std::uint32_t>(first), prefix_tokens(first, 400)));
  }
  ASSERT_GT(store_->stats().parked_bytes, Bytes());
  events_.memory = [](const auto& free_memory) {
    free_memory();
    return std::optional<Refused>(Refused{memory::Level::kEmergency, 1_MiB, {}});
  };
  submit(job(4, prefix_tokens(4, 100)));
  turn();
  EXPECT_EQ(store_->stats().parked_bytes, Bytes());
}

TEST_F(BatchLoopPrefixTest, ABranchThatIsCutOffComesBack) {
  const std::vector<Token> head = prefix_tokens(1, 300);
  std::vector<Token> one = head;
  std::vector<Token> two = head;
  const std::vector<Token> one_tail = prefix_tokens(2, 100);
  const std::vector<Token> two_tail = prefix_tokens(3, 100);
  one.insert(one.end(), one_tail.begin(), one_tail.end());
  two.insert(two.end(), two_tail.begin(), two_tail.end());
  run_alone(job(1, one));
  run_alone(job(2, two));
  EXPECT_EQ(cached(2), 300U);
  run_alone(job(3, next_turn(one)));
  EXPECT_EQ(cached(3), 407U);
}

/// Thousands of random requests in a small cache: each answer is the one it has alone.
TEST_F(BatchLoopPrefixTest, WhateverComesBackAnswersStayRight) {
  std::uint64_t hits = 0;
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto pick = [&](std::uint32_t least, std::uint32_t most) {
      return std::uniform_int_distribution<std::uint32_t>(least, most)(random);
    };
    restart({.cells = pick(700, 1500), .sequences = pick(1, 4)});
    engine_->can_share = pick(0, 2) > 0;
    if (pick(0, 2) == 0) engine_->prefix_granularity = pick(2, 20);
    std::map<std::uint32_t, Job> jobs;
    for (std::uint32_t id = 1; id <= 120; ++id) {
      std::vector<Token> prompt = prefix_tokens(static_cast<Token>(pick(1, 4)), pick(60, 400));
      const std::vector<Token> own = prefix_tokens(static_cast<Token>(10 + id), pick(1, 60));
      prompt.insert(prompt.end(), own.begin(), own.end());
      jobs[id] = job(id, prompt, pick(1, 40));
      submit(jobs[id]);
      for (std::uint32_t i = pick(0, 30); i > 0; --i) {
        if (!turn() && pick(0, 1) == 0) settle(*store_);
      }
      if (pick(0, 3) == 0) clock_.advance(std::chrono::milliseconds(pick(1, 4000)));
      if (pick(0, 20) == 0) store_->set_budgets(Bytes(pick(0, 1) * 100'000), stored_max_);
      if (pick(0, 30) == 0) loop_->clear_cache(1000 + id, pick(0, 1) == 0);
      store_->tick();
    }
    for (const auto& [id, each] : jobs) {
      finish(id);
      if (HasFatalFailure()) return;
      ASSERT_EQ(events_.stories[id].text, answer_alone(*engine_, each, cells_).text) << id;
    }
    hits += store_->stats().hits;
  }
  EXPECT_GT(hits, 50U) << "the seeds reach what they are for";
}

}  // namespace
}  // namespace pensieve::worker
