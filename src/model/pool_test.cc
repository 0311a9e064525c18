// Loading, failing, dying and loading again.
#include "model/testing/pool_fixture.h"

#include <signal.h>

namespace pensieve::model {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = LoadFailure::Kind;

TEST_F(PoolTest, LoadsAtTheFirstRequestAndSaysWhatItHas) {
  make_pool("plan_mib 100\ncontext_tokens 5000\n");
  EXPECT_EQ(pool_->status().state, State::kUnloaded);
  EXPECT_EQ(starts(), 0);
  const auto link = worker();
  ASSERT_NE(link, nullptr);
  EXPECT_TRUE(link->usable());
  const Pool::Status status = pool_->status();
  EXPECT_EQ(status.state, State::kReady);
  EXPECT_EQ(status.pid, link->pid());
  EXPECT_EQ(status.info->context_tokens, 5000U);
  EXPECT_EQ(status.reserved, 100_MiB);
  EXPECT_EQ(ledger_.promised(), 100_MiB);
  io_.clock.advance(seconds(7));
  EXPECT_EQ(pool_->status().uptime, seconds(7));
}

TEST_F(PoolTest, TheSecondRequestGetsTheSameWorker) {
  make_pool("plan_mib 100\n");
  EXPECT_EQ(worker(), worker());
  EXPECT_EQ(starts(), 1);
}

TEST_F(PoolTest, RequestsThatComeMeanwhileWaitForTheSameLoadAndCostNothing) {
  make_pool("plan_mib 100\nload_ms 200\n");
  std::vector<std::shared_ptr<std::optional<Pool::Acquired>>> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(io_.begin(pool_->acquire()));
  ASSERT_TRUE(wait_for_state(State::kLoading));
  ASSERT_TRUE(wait_for_state(State::kReady));
  ASSERT_TRUE(io_.run_until([&] {
    return std::all_of(waiting.begin(), waiting.end(),
                       [](const auto& w) { return w->has_value(); });
  }));
  for (const auto& acquired : waiting) {
    ASSERT_TRUE(**acquired);
    EXPECT_EQ(***acquired, **waiting.front()->operator->());
  }
  EXPECT_EQ(starts(), 1);
  EXPECT_LT(io_.handlers, 1000U) << "they must not wake each other in a circle";
}

TEST_F(PoolTest, AWaitInGoesSharesTheOutcomeOfTheLoadThatItSaw) {
  make_pool("plan_mib 10000\n");
  Pool::Wait wait;
  const auto first = io_.wait_for(pool_->acquire_by(io_.clock.now(), wait));
  EXPECT_FALSE(first) << "the load takes longer than no time at all";
  ASSERT_TRUE(wait_for_state(State::kUnloaded));  // While it does something else.
  const auto second = io_.wait_for(pool_->acquire_by(TimePoint::max(), wait));
  ASSERT_TRUE(second);
  ASSERT_FALSE(*second);
  EXPECT_EQ(second->error().kind, Kind::kNotNow);
  EXPECT_EQ(starts(), 1) << "its second go began a load of its own";
}

TEST_F(PoolTest, AWaitInGoesGetsTheWorker) {
  make_pool("plan_mib 100\nload_ms 50\n");
  Pool::Wait wait;
  EXPECT_FALSE(io_.wait_for(pool_->acquire_by(io_.clock.now(), wait)));
  const auto acquired = io_.wait_for(pool_->acquire_by(TimePoint::max(), wait));
  ASSERT_TRUE(acquired && *acquired);
  EXPECT_TRUE((**acquired)->usable());
  EXPECT_EQ(starts(), 1);
}

TEST_F(PoolTest, RequestsThatWaitedForALoadShareItsFailure) {
  make_pool("plan_mib 10000\n");
  std::vector<std::shared_ptr<std::optional<Pool::Acquired>>> waiting;
  for (int i = 0; i < 5; ++i) waiting.push_back(io_.begin(pool_->acquire()));
  ASSERT_TRUE(io_.run_until([&] {
    return std::all_of(waiting.begin(), waiting.end(),
                       [](const auto& w) { return w->has_value(); });
  }));
  for (const auto& acquired : waiting) {
    ASSERT_FALSE(**acquired);
    EXPECT_EQ((*acquired)->error().kind, Kind::kNotNow);
  }
  EXPECT_EQ(starts(), 1);
}

TEST_F(PoolTest, WhatDoesNotFitNowIsRefusedWithTheNumbersAndLoadedWhenItFits) {
  make_pool("plan_mib 10240\n");
  const LoadFailure refused = failure();
  EXPECT_EQ(refused.kind, Kind::kNotNow);
  for (const char* part : {"model m", "needs 10.00GB", "8.00GB available", "--context"}) {
    EXPECT_NE(refused.message.find(part), std::string::npos) << refused.message;
  }
  EXPECT_EQ(pool_->status().state, State::kUnloaded);
  EXPECT_EQ(ledger_.promised(), Bytes()) << "a refused load promises nothing";
  set_available(saturating_sub(11_GiB, Bytes(1)));
  EXPECT_EQ(failure().kind, Kind::kNotNow) << "one byte short, and tried again at once";
  set_available(11_GiB);
  EXPECT_NE(worker(), nullptr) << "exactly at the floor fits";
}

TEST_F(PoolTest, WhatIsLargerThanTheMachineWillNeverFit) {
  make_pool("plan_mib 15360\n");  // 15 GiB and the floor of 1 GiB are just the machine.
  EXPECT_EQ(failure().kind, Kind::kNotNow);
  folder_.write("m.script", "plan_mib 15361\n");
  const LoadFailure refused = failure();
  EXPECT_EQ(refused.kind, Kind::kNever);
  EXPECT_NE(refused.message.find("This machine is too small"), std::string::npos)
      << refused.message;
}

TEST_F(PoolTest, WhatIsPromisedToAnotherIsNotGivenAway) {
  const auto promised = ledger_.try_reserve(5_GiB, 8_GiB, 1_GiB);
  ASSERT_TRUE(promised);
  make_pool("plan_mib 2049\n");
  EXPECT_EQ(failure().kind, Kind::kNotNow);
  folder_.write("m.script", "plan_mib 2048\n");
  EXPECT_NE(worker(), nullptr);
}

TEST_F(PoolTest, WithoutAReadingOfTheMemoryNothingIsLoaded) {
  make_pool("plan_mib 1\n");
  source_.fail("meminfo vanished");
  io_.clock.advance(seconds(10));
  const LoadFailure refused = failure();
  EXPECT_EQ(refused.kind, Kind::kNotNow);
  EXPECT_NE(refused.message.find("cannot be read"), std::string::npos) << refused.message;
}

TEST_F(PoolTest, NothingIsPromisedOnAReadingThatIsNotOfThisMoment) {
  make_pool("plan_mib 1\n");
  monitor_.sample();
  source_.fail("meminfo vanished");
  io_.clock.advance(milliseconds(100));
  EXPECT_EQ(failure().kind, Kind::kNotNow);
  EXPECT_TRUE(monitor_.status().available) << "good enough for admission";
}

TEST_F(PoolTest, NeverIsTakenBackAtOnceWhereTheLimitIsRaised) {
  make_pool("plan_mib 3000\n");
  source_.set({2_GiB, 2_GiB, "cgroup /small"});
  EXPECT_EQ(failure().kind, Kind::kNever);
  source_.set({2_GiB, 8_GiB, "cgroup /larger"});
  io_.clock.advance(milliseconds(100));
  EXPECT_EQ(failure().kind, Kind::kNotNow);
  set_available(8_GiB);
  EXPECT_NE(worker(), nullptr) << "what was said of the smaller limit delays nothing any more";
}

TEST_F(PoolTest, AWorkerThatWasKilledIsReplacedAtTheNextRequest) {
  make_pool("plan_mib 100\n");
  const auto first = worker();
  ASSERT_NE(first, nullptr);
  ASSERT_EQ(::kill(first->pid(), SIGKILL), 0);
  ASSERT_TRUE(wait_for_state(State::kUnloaded));
  EXPECT_EQ(ledger_.promised(), Bytes()) << "its promise ends with it";
  EXPECT_EQ(pool_->status().ends[worker::WorkerEnd::kKilled], 1U);
  EXPECT_EQ(pool_->status().pid, 0);
  const auto second = worker();
  ASSERT_NE(second, nullptr);
  EXPECT_NE(second, first);
  EXPECT_TRUE(second->usable());
  EXPECT_EQ(ledger_.promised(), 100_MiB);
  EXPECT_EQ(starts(), 2);
}

TEST_F(PoolTest, ARequestThatComesBetweenDeathAndVerdictGetsTheNextWorker) {
  make_pool("plan_mib 100\n");
  const auto first = worker();
  ASSERT_NE(first, nullptr);
  ASSERT_EQ(::kill(first->pid(), SIGKILL), 0);
  ASSERT_TRUE(io_.run_until([&] { return !first->usable(); }));
  const auto second = worker();
  ASSERT_NE(second, nullptr);
  EXPECT_NE(second, first);
  EXPECT_TRUE(second->usable());
}

TEST_F(PoolTest, ABrokenModelIsToldWithFileAndLineAndNotTriedAgainAtOnce) {
  make_pool("weights_mib x\n");
  const LoadFailure broken = failure();
  EXPECT_EQ(broken.kind, Kind::kBroken);
  EXPECT_NE(broken.message.find("m.script:1: "), std::string::npos) << broken.message;
  EXPECT_EQ(failure().message, broken.message);
  io_.clock.advance(milliseconds(999));
  failure();
  EXPECT_EQ(starts(), 1);
  io_.clock.advance(milliseconds(1));
  failure();
  EXPECT_EQ(starts(), 2);
  io_.clock.advance(milliseconds(1999));
  failure();
  EXPECT_EQ(starts(), 2) << "the second wait is twice the first";
  io_.clock.advance(milliseconds(1));
  folder_.write("m.script", "plan_mib 100\n");
  EXPECT_NE(worker(), nullptr) << "a model that was mended is loaded";
  EXPECT_EQ(starts(), 3);
}

TEST_F(PoolTest, AWaitBetweenFailuresHasABound) {
  make_pool("weights_mib x\n");
  for (int i = 0; i < 8; ++i) {
    failure();
    io_.clock.advance(seconds(30));
  }
  EXPECT_EQ(starts(), 8);
}

TEST_F(PoolTest, AWorkerProgramThatIsNotThereIsBroken) {
  options_.worker_program = "/nowhere/pensieve-worker";
  make_pool("plan_mib 100\n");
  const LoadFailure broken = failure();
  EXPECT_EQ(broken.kind, Kind::kBroken);
  EXPECT_NE(broken.message.find("/nowhere/pensieve-worker"), std::string::npos);
  EXPECT_EQ(pool_->status().state, State::kUnloaded);
}

TEST_F(PoolTest, AWorkerThatSaysNothingAtAllIsGivenUpLongBeforeASlowLoadWouldBe) {
  options_.worker_program = script("mute", "exec sleep 100");
  options_.hang_after = seconds(1);
  make_pool("");
  const auto acquired = io_.begin(pool_->acquire());
  ASSERT_TRUE(io_.run_until([this] { return starts() == 1; }));
  io_.clock.advance(seconds(10));
  EXPECT_FALSE(acquired->has_value());
  io_.clock.advance(seconds(1));
  ASSERT_TRUE(io_.run_until([&] { return acquired->has_value(); }));
  ASSERT_FALSE(**acquired);
  EXPECT_EQ((*acquired)->error().kind, Kind::kBroken);
  EXPECT_EQ(pool_->status().ends.at(worker::WorkerEnd::kDeadline), 1U);
}

TEST_F(PoolTest, AWorkerThatDiesWhileLoadingIsBroken) {
  options_.worker_program = script("dies", "exit 7");
  make_pool("plan_mib 100\n");
  const LoadFailure broken = failure();
  EXPECT_EQ(broken.kind, Kind::kBroken);
  EXPECT_NE(broken.message.find("crashed (exit code 7)"), std::string::npos) << broken.message;
}

TEST_F(PoolTest, AWorkerThatRunsOutOfMemoryWhileLoadingMayFitAnotherTime) {
  options_.worker_program = script("dies", "exit 91");
  make_pool("plan_mib 100\n");
  EXPECT_EQ(failure().kind, Kind::kNotNow);
  EXPECT_EQ(failure().kind, Kind::kNotNow);
  EXPECT_EQ(starts(), 2);
}

TEST_F(PoolTest, AWorkerThatSomebodyKillsWhileLoadingIsTriedAgainAfterAPause) {
  options_.worker_program = script("dies", "kill -9 $$");
  make_pool("plan_mib 100\n");
  const LoadFailure interrupted = failure();
  EXPECT_EQ(interrupted.kind, Kind::kInterrupted);
  EXPECT_NE(interrupted.message.find("killed (signal 9, Killed)"), std::string::npos)
      << interrupted.message;
  EXPECT_EQ(pool_->status().refusals, 0U) << "no lack of memory";
  EXPECT_EQ(failure().kind, Kind::kInterrupted);
  EXPECT_EQ(starts(), 1) << "somebody who kills each load must not keep the machine busy";
  io_.clock.advance(seconds(1));
  EXPECT_EQ(failure().kind, Kind::kInterrupted);
  EXPECT_EQ(starts(), 2);
}

TEST_F(PoolTest, AStopThatWasAskedForIsACleanEnd) {
  make_pool("plan_mib 100\n");
  worker();
  pool_->shut_down(std::chrono::minutes(1));
  ASSERT_TRUE(wait_for_state(State::kUnloaded));
  EXPECT_EQ(pool_->status().ends[worker::WorkerEnd::kClean], 1U);
  EXPECT_EQ(ledger_.promised(), Bytes());
}

TEST_F(PoolTest, StatesHaveNames) {
  EXPECT_EQ(name(State::kUnloaded), "unloaded");
  EXPECT_EQ(name(State::kLoading), "loading");
  EXPECT_EQ(name(State::kReady), "ready");
}

}  // namespace
}  // namespace pensieve::model
