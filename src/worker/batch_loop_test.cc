// Scheduling: who gets how much of each step, what is computed only once, and how requests end.
// The test turns the loop by hand; the engine is arithmetic.
#include "worker/batch_loop.h"

#include <algorithm>
#include <chrono>
#include <semaphore>
#include <thread>

#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

using engine::Token;
using std::chrono::milliseconds;
using Input = FakeEngine::Input;

TEST_F(BatchLoopTest, OneRequestGetsItsWholeAnswerAndOneEnd) {
  const Job request = job(7, tokens_from(1, 20), 5);
  run_alone(request);
  EXPECT_EQ(story(7).accepted->input_tokens, 20U);
  EXPECT_EQ(cached(7), 0U);
  EXPECT_EQ(story(7).text, alone(request).text);
  expect_done(7, StopCause::kTokenLimit);
  EXPECT_EQ(story(7).done.front().output_tokens, 5U);
  EXPECT_EQ(story(7).done.front().stop_sequence, "");
  EXPECT_FALSE(loop_->stats().busy);
}

TEST_F(BatchLoopTest, TwoRequestsTakeTurnsTokenByToken) {
  std::vector<std::uint32_t> speakers;
  events_.on_text = [&](std::uint32_t id) { speakers.push_back(id); };
  const Job first = job(1, tokens_from(1, 10), 6);
  const Job second = job(2, tokens_from(2, 10), 6);
  submit(first);
  submit(second);
  drain();
  ASSERT_EQ(speakers.size(), 12U);
  for (std::size_t i = 0; i < speakers.size(); i += 2) EXPECT_NE(speakers[i], speakers[i + 1]);
  EXPECT_EQ(story(1).text, alone(first).text);
  EXPECT_EQ(story(2).text, alone(second).text);
}

TEST_F(BatchLoopTest, ARequestJoinsWhileAnotherIsInTheMiddleOfItsAnswer) {
  submit(job(1, tokens_from(1, 10), 50));
  turns(5);
  submit(job(2, tokens_from(2, 10), 3));
  turn();
  EXPECT_EQ(engine_->steps.back().size(), 2U);
  drain();
  EXPECT_EQ(events_.done_order, (std::vector<std::uint32_t>{2, 1}));
}

TEST_F(BatchLoopTest, ALongPromptLeavesEachStepShortWhileAnotherDecodes) {
  make({.cells = 4000});
  engine_->during_step = [&](std::size_t tokens) {
    clock_.advance(milliseconds(static_cast<int>(tokens)));  // 1000 tokens per second.
  };
  submit(job(1, tokens_from(1, 32), 1000));
  turn();
  submit(job(2, tokens_from(2, 1000), 1));
  int steps = 0;
  while (story(2).done.empty() && ++steps < 100) {
    const TimePoint began = clock_.now();
    turn();
    const auto& inputs = engine_->steps.back();
    ASSERT_EQ(inputs.size(), 2U);
    EXPECT_EQ(inputs[0], (Input{0, 1, true})) << "the other's stream must not pause";
    EXPECT_LE(clock_.now() - began, ChunkSize::kTargetAmongOthers + milliseconds(1));
  }
  EXPECT_GE(steps, 1000 / 120);
  EXPECT_LE(steps, 1000 / 112 + 1);
}

TEST_F(BatchLoopTest, AlonePromptsFillTheStepOnceTheSpeedIsKnown) {
  engine_->during_step = [&](std::size_t) { clock_.advance(milliseconds(1)); };
  submit(job(1, tokens_from(1, 600), 1));
  drain();
  ASSERT_EQ(engine_->steps.size(), 4U);
  EXPECT_EQ(engine_->steps[0].front().tokens, 64U) << "unmeasured";
  EXPECT_EQ(engine_->steps[1].front().tokens, 256U);
  EXPECT_EQ(engine_->steps[2].front().tokens, 256U);
  EXPECT_EQ(engine_->steps[3].front(), (Input{0, 24, true}));
}

TEST_F(BatchLoopTest, AShortPromptOvertakesALongOneWhichKeepsMoving) {
  make({.cells = 4000});
  submit(job(1, tokens_from(1, 1000), 1));
  submit(job(2, tokens_from(2, 30), 5));
  turn();
  EXPECT_EQ(story(1).text, "");
  EXPECT_NE(story(2).text, "") << "its whole prompt fits beside the half for the older one";
  EXPECT_EQ(engine_->steps.back(), (std::vector<Input>{{1, 30, true}, {0, 34, false}}));
  while (story(1).done.empty()) {
    const std::size_t before = engine_->tokens_of(0).size();
    ASSERT_TRUE(turn());
    EXPECT_GT(engine_->tokens_of(0).size(), before);
  }
  expect_done(2, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, TheOldestPromptGetsHalfOfEachStepHoweverManyShortOnesCome) {
  make({.cells = 4000, .sequences = 4});
  submit(job(1, tokens_from(1, 400), 1));
  std::uint32_t next = 2;
  while (story(1).done.empty()) {
    while (loop_->stats().running + loop_->stats().waiting < 4) {
      submit(job(next, tokens_from(static_cast<Token>(next), 60), 1));
      ++next;
    }
    const std::size_t before = engine_->tokens_of(0).size();
    turn();
    ASSERT_GE(engine_->tokens_of(0).size(), std::min<std::size_t>(before + 32, 400));
  }
}

TEST_F(BatchLoopTest, TheNextTurnOfAConversationReusesWhatWasComputed) {
  const Job first = job(1, tokens_from(1, 50), 5);
  run_alone(first);
  Job second = job(2, alone(first).tokens, 3);
  const std::vector<Token> more = tokens_from(9, 10);
  second.prompt.insert(second.prompt.end(), more.begin(), more.end());
  engine_->steps.clear();
  run_alone(second);
  EXPECT_EQ(cached(2), 54U) << "all but the last sampled token, which was never processed";
  EXPECT_EQ(engine_->steps.front().front(), (Input{0, 11, true}));
  EXPECT_EQ(story(2).text, alone(second).text);
}

TEST_F(BatchLoopTest, AtLeastOneTokenIsAlwaysProcessed) {
  const Job request = job(1, tokens_from(1, 50), 2);
  run_alone(request);
  engine_->steps.clear();
  Job again = request;
  again.id = 2;
  run_alone(again);
  EXPECT_EQ(cached(2), 49U);
  EXPECT_EQ(engine_->steps.front().front(), (Input{0, 1, true}));
  EXPECT_EQ(story(2).text, story(1).text);
}

TEST_F(BatchLoopTest, AHeadThatARunningRequestHoldsIsSharedAndCostsNoCells) {
  submit(job(1, tokens_from(1, 100), 500));
  turns(4);
  const std::size_t cells_before = engine_->cells_used();
  Job second = job(2, tokens_from(1, 80), 1);
  const std::vector<Token> own = tokens_from(2, 10);
  second.prompt.insert(second.prompt.end(), own.begin(), own.end());
  submit(second);
  turn();
  EXPECT_EQ(engine_->shared_tokens, 80U);
  EXPECT_EQ(cached(2), 80U);
  EXPECT_EQ(engine_->cells_used(), cells_before + 1 + 10);
  EXPECT_EQ(story(2).text, alone(second).text);
}

TEST_F(BatchLoopTest, AShortCommonHeadIsCopiedSoThatTheLongConversationStaysWhole) {
  run_alone(job(1, tokens_from(1, 100), 1));
  Job other = job(2, tokens_from(1, 40), 1);
  other.prompt.push_back(5);
  run_alone(other);
  EXPECT_EQ(cached(2), 40U);
  EXPECT_EQ(engine_->tokens_of(0).size(), 100U);
  run_alone(job(3, tokens_from(1, 100), 1));
  EXPECT_EQ(cached(3), 99U);
}

TEST_F(BatchLoopTest, AnEngineThatCannotShareContinuesInPlace) {
  engine_->can_share = false;
  run_alone(job(1, tokens_from(1, 100), 1));
  Job other = job(2, tokens_from(1, 40), 3);
  other.prompt.push_back(5);
  run_alone(other);
  EXPECT_EQ(cached(2), 40U);
  EXPECT_EQ(story(2).text, alone(other).text);
}

TEST_F(BatchLoopTest, AnEngineThatCannotShareComputesAnewBesideARunningRequest) {
  engine_->can_share = false;
  submit(job(1, tokens_from(1, 100), 500));
  turns(4);
  const Job second = job(2, tokens_from(1, 100), 2);
  submit(second);
  turns(4);
  EXPECT_EQ(cached(2), 0U);
  EXPECT_EQ(story(2).text, alone(second).text);
}

TEST_F(BatchLoopTest, WhatAnEngineCannotKeepIsComputedAgain) {
  engine_->prefix_granularity = 16;
  run_alone(job(1, tokens_from(1, 50), 1));
  Job second = job(2, tokens_from(1, 45), 3);
  second.prompt.push_back(5);
  run_alone(second);
  EXPECT_EQ(cached(2), 32U);
  EXPECT_EQ(story(2).text, alone(second).text);
}

TEST_F(BatchLoopTest, EndsAtTheEndTokenWhichIsNotText) {
  engine_->next_token = [](const std::vector<Token>& tokens) {
    return tokens.size() < 13 ? Token{42} : FakeEngine::kEnd;
  };
  run_alone(job(1, tokens_from(1, 10), 100));
  EXPECT_EQ(story(1).text, "42 42 42 ");
  expect_done(1, StopCause::kEndOfTurn);
  EXPECT_EQ(story(1).done.front().output_tokens, 3U);
}

TEST_F(BatchLoopTest, AnAnswerMayBeEmpty) {
  engine_->next_token = [](const std::vector<Token>&) { return FakeEngine::kEnd; };
  run_alone(job(1, tokens_from(1, 10), 100));
  EXPECT_EQ(story(1).text, "");
  expect_done(1, StopCause::kEndOfTurn);
  EXPECT_EQ(story(1).done.front().output_tokens, 0U);
  EXPECT_EQ(story(1).done.front().decode_seconds, 0.0);
}

TEST_F(BatchLoopTest, APromptAloneIsReadAndKeptForTheNextRequest) {
  run_alone(job(1, tokens_from(1, 50), 0));
  EXPECT_EQ(story(1).text, "");
  expect_done(1, StopCause::kTokenLimit);
  EXPECT_EQ(story(1).done.front().output_tokens, 0U);
  run_alone(job(2, tokens_from(1, 50), 1));
  EXPECT_EQ(cached(2), 49U);
}

TEST_F(BatchLoopTest, EndsAtAStopSequenceAndSaysWhich) {
  engine_->pieces = {{1, "one "}, {2, "two "}, {3, "three "}};
  engine_->next_token = [](const std::vector<Token>& tokens) {
    return static_cast<Token>(tokens.size() - 9);
  };
  Job request = job(1, tokens_from(1, 10), 100);
  request.stop_sequences = {"never", "o th"};
  run_alone(request);
  EXPECT_EQ(story(1).text, "one tw");
  expect_done(1, StopCause::kStopSequence);
  EXPECT_EQ(story(1).done.front().stop_sequence, "o th");
  EXPECT_EQ(story(1).done.front().output_tokens, 3U);
}

TEST_F(BatchLoopTest, TextHeldBackForAStopSequenceComesOutAtTheEnd) {
  engine_->pieces = {{1, "end?"}};
  engine_->next_token = [](const std::vector<Token>&) { return Token{1}; };
  Job request = job(1, tokens_from(1, 10), 1);
  request.stop_sequences = {"?!"};
  run_alone(request);
  EXPECT_EQ(story(1).text, "end?");
  expect_done(1, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, EndsWhenTheWindowIsFull) {
  make({.cells = 30});
  const Job request = job(1, tokens_from(1, 20), 100);
  run_alone(request);
  expect_done(1, StopCause::kWindowFull);
  EXPECT_EQ(story(1).done.front().output_tokens, 10U);
  EXPECT_EQ(story(1).text, alone(request).text);
}

TEST_F(BatchLoopTest, APromptOneShortOfTheWindowGetsOneToken) {
  make({.cells = 30});
  run_alone(job(1, tokens_from(1, 29), 100));
  expect_done(1, StopCause::kWindowFull);
  EXPECT_EQ(story(1).done.front().output_tokens, 1U);
}

TEST_F(BatchLoopTest, AnEngineWithFewerCellsThanItsWindowEndsTheRequestAndNotTheLoop) {
  make({.cells = 25, .window = 100});
  run_alone(job(1, tokens_from(1, 20), 100));
  expect_done(1, StopCause::kWindowFull);
  run_alone(job(2, tokens_from(2, 10), 3));
  expect_done(2, StopCause::kTokenLimit);
}

TEST_F(BatchLoopTest, ReportsHowLongThePromptAndTheAnswerTook) {
  engine_->during_step = [&](std::size_t) { clock_.advance(milliseconds(100)); };
  run_alone(job(1, tokens_from(1, 20), 4));
  EXPECT_DOUBLE_EQ(story(1).done.front().prefill_seconds, 0.1);
  EXPECT_DOUBLE_EQ(story(1).done.front().decode_seconds, 0.3);
}

TEST_F(BatchLoopTest, SaysWhenTheNumberOfRunningOrWaitingRequestsChanges) {
  submit(job(1, tokens_from(1, 20), 4));
  turn();
  EXPECT_EQ(events_.load_changes, 1U);
  EXPECT_EQ(loop_->stats().running, 1U);
  turns(2);
  EXPECT_EQ(events_.load_changes, 1U);
  drain();
  EXPECT_EQ(events_.load_changes, 2U);
  EXPECT_EQ(loop_->stats().running, 0U);
}

TEST_F(BatchLoopTest, NothingToDoIsNoStep) {
  EXPECT_FALSE(turn());
  EXPECT_TRUE(engine_->steps.empty());
  loop_->cancel(99);
  EXPECT_FALSE(turn());
  EXPECT_TRUE(events_.stories.empty());
}

TEST_F(BatchLoopTest, AnEngineErrorEndsTheRunWithIt) {
  engine_->step_error = Error{Code::kInternal, "the device is gone"};
  submit(job(1, tokens_from(1, 20), 4));
  const Result<void> ended = loop_->run();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Code::kInternal);
  EXPECT_EQ(ended.error().message, "the device is gone");
  EXPECT_EQ(story(1).verdicts(), 0U);
}

TEST_F(BatchLoopTest, AStopThatCameBeforeTheRunEndsIt) {
  loop_->stop();
  EXPECT_TRUE(loop_->run());
}

TEST_F(BatchLoopTest, ServesRequestsFromSeveralThreadsAndSleepsInBetween) {
  constexpr std::uint32_t kThreads = 3;
  constexpr std::uint32_t kJobs = 20;
  std::counting_semaphore<kThreads * kJobs> ended(0);
  events_.on_ended = [&](std::uint32_t) { ended.release(); };
  std::thread runner([&] { EXPECT_TRUE(loop_->run()); });
  std::vector<std::thread> clients;
  for (std::uint32_t client = 0; client < kThreads; ++client) {
    clients.emplace_back([&, client] {
      for (std::uint32_t i = 0; i < kJobs; ++i) {
        const std::uint32_t id = 1 + client * kJobs + i;
        EXPECT_TRUE(loop_->submit(job(id, tokens_from(static_cast<Token>(i), 20), 5)));
        if (i % 4 == 0) loop_->cancel(id);
        EXPECT_LE(loop_->stats().running, 4U);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (std::uint32_t i = 0; i < kThreads * kJobs; ++i) {
    ASSERT_TRUE(ended.try_acquire_for(std::chrono::seconds(30)));
  }
  loop_->stop();
  runner.join();
  EXPECT_EQ(events_.stories.size(), kThreads * kJobs);
}

}  // namespace
}  // namespace pensieve::worker
