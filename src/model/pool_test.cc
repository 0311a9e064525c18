// A pool with real workers and a scripted model, a fake machine and a clock that the test moves.
#include "model/pool.h"

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "memory/testing/fake_memory_source.h"
#include "worker/testing/io_driver.h"
#include "worker/testing/temp_folder.h"

namespace pensieve::model {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = LoadFailure::Kind;

class PoolTest : public testing::Test {
 protected:
  PoolTest() {
    set_available(8_GiB);
    options_.model = {"m", folder_.at("m.script"), "scripted"};
    // Writes a line at each start, so that starts can be counted.
    options_.worker_program =
        script("worker", std::string("exec ") + PENSIEVE_WORKER_PROGRAM + " \"$@\"");
    options_.sequences_max = 2;
  }
  ~PoolTest() override {
    if (pool_) pool_->shut_down(std::chrono::minutes(1));
    EXPECT_TRUE(io_.run_dry()) << "a coroutine of the pool never ends";
  }

  /// A program that counts its start and then does this.
  std::string script(const std::string& name, const std::string& commands) {
    const std::string path =
        folder_.write(name, "#!/bin/sh\necho >> " + folder_.at("starts") + "\n" + commands + "\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  std::ptrdiff_t starts() const {
    std::ifstream file(folder_.at("starts"));
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  }

  void make_pool(const std::string& model) {
    folder_.write("m.script", model);
    pool_ = std::make_unique<Pool>(io_.io.get_executor(), io_.clock, monitor_, ledger_, options_);
  }
  /// On a machine of 16 GiB; seen at the next check.
  void set_available(Bytes available) {
    source_.set_available(available);
    io_.clock.advance(milliseconds(100));
  }

  Pool::Acquired acquire() { return io_.wait_for(pool_->acquire()); }
  std::shared_ptr<worker::Link> worker() {
    Pool::Acquired acquired = acquire();
    EXPECT_TRUE(acquired) << acquired.error().message;
    return acquired ? *acquired : nullptr;
  }
  LoadFailure failure() {
    const Pool::Acquired acquired = acquire();
    EXPECT_FALSE(acquired) << "it was loaded";
    return acquired ? LoadFailure{} : acquired.error();
  }
  bool wait_for_state(State state) {
    return io_.run_until([&] { return pool_->status().state == state; });
  }
  /// A request with a prompt of so many tokens, and one token of answer.
  std::unique_ptr<worker::Call> generate(worker::Link& link, std::uint32_t prompt_tokens) {
    worker::GenerateRequest request;
    std::string text;
    for (std::uint32_t i = 0; i < prompt_tokens; ++i) text += " word";
    request.prompt.messages = {{engine::Role::kUser, text}};
    request.output_tokens_max = 1;
    auto call = link.open(worker::FrameType::kGenerate, worker::encode(request));
    EXPECT_TRUE(call) << call.error().message;
    return *std::move(call);
  }
  /// The type of the frame that ends the call.
  worker::FrameType closing_frame(worker::Call& call) {
    while (true) {
      const worker::CallEvent event = io_.wait_for(call.next(TimePoint::max()));
      const auto* frame = std::get_if<worker::Frame>(&event);
      PENSIEVE_CHECK(frame != nullptr);
      const bool goes_on = frame->type == worker::FrameType::kAccepted ||
                           frame->type == worker::FrameType::kStarted ||
                           frame->type == worker::FrameType::kText;
      if (!goes_on) return frame->type;
    }
  }
  /// One tick of a governor that sees this, a quarter of a second after the last one.
  void follow(memory::Level level, Bytes available) {
    source_.set_available(available);
    io_.clock.advance(milliseconds(250));
    pool_->settle();
    monitor_.sample();
    memory::Situation situation;
    situation.level = level;
    situation.available = available;
    situation.engines = memory::Engines::kBusy;
    pool_->follow(governor_.step(situation, io_.clock.now()));
  }
  void expect_context(Bytes available, std::uint32_t tokens) {
    set_available(available);
    ASSERT_NE(worker(), nullptr);
    EXPECT_EQ(pool_->status().info->context_tokens, tokens);
    pool_->shut_down(std::chrono::minutes(1));
    ASSERT_TRUE(wait_for_state(State::kUnloaded));
  }

  worker::TempFolder folder_;
  worker::IoDriver io_;
  memory::FakeMemorySource source_;
  memory::Monitor monitor_{source_, io_.clock, {}};
  memory::Governor governor_{memory::Governor::Options()};
  memory::Ledger ledger_;
  Pool::Options options_;
  std::unique_ptr<Pool> pool_;
};

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

TEST_F(PoolTest, ChoosesTheLargestUsefulWindowThatThisMachineCouldEverHold) {
  make_pool("kv_kib_per_token 128\ncontext_tokens 100000\n");  // 32768 tokens take 4 GiB.
  const auto expect = [&](Bytes total, std::uint32_t window) {
    source_.set({2_GiB, total, "machine"});
    io_.clock.advance(milliseconds(100));
    ASSERT_NE(worker(), nullptr);
    EXPECT_EQ(pool_->status().info->context_tokens, window);
    EXPECT_EQ(pool_->status().cells, 4096U) << "and begins with few cells";
    pool_->shut_down(std::chrono::minutes(1));
    ASSERT_TRUE(wait_for_state(State::kUnloaded));
  };
  expect(16_GiB, 32768);
  expect(5_GiB, 16384);  // The worker itself does not fit beside 4 GiB and the floor.
  expect(Bytes((3_GiB).count() + (16_MiB).count()), 16384);
  expect(3_GiB, 8192);
  expect(2_GiB, 4096);
}

TEST_F(PoolTest, ALoadReservesTheFirstRungAlone) {
  make_pool("kv_kib_per_token 128\ncontext_tokens 100000\nweights_mib 10\n");
  ASSERT_NE(worker(), nullptr);
  EXPECT_GE(ledger_.promised(), 512_MiB);
  EXPECT_LT(ledger_.promised(), 700_MiB) << "4096 cells take 512 MiB, 32768 would take 4 GiB";
  EXPECT_EQ(pool_->status().cells_max, 65536U) << "two sequences of one window each";
}

TEST_F(PoolTest, AFirstRungThatDoesNotFitNowIsRefusedWithTheNumbers) {
  make_pool("kv_kib_per_token 128\ncontext_tokens 100000\n");
  set_available(1_GiB);
  const LoadFailure refused = failure();
  EXPECT_EQ(refused.kind, Kind::kNotNow);
  EXPECT_NE(refused.message.find("needs 0.5"), std::string::npos) << refused.message;
}

/// A worker that has to grow: 32 KiB per cell, so that 4,096 cells take 128 MiB.
constexpr const char* kElastic = "kv_kib_per_token 32\ncontext_tokens 16384\n";

TEST_F(PoolTest, ARequestThatNeedsMoreCellsGetsThemAndTheLedgerKnowsFirst) {
  make_pool(kElastic);
  const auto link = worker();
  ASSERT_NE(link, nullptr);
  const Bytes first = pool_->status().reserved;
  const auto call = generate(*link, 6000);
  ASSERT_TRUE(io_.run_until([&] { return pool_->status().reserved > first; }));
  EXPECT_EQ(closing_frame(*call), worker::FrameType::kDone);
  EXPECT_EQ(pool_->status().cells, 8192U);
  EXPECT_EQ(ledger_.promised(), Bytes(first.count() + (128_MiB).count()))
      << "the copy of the resize was given back";
}

TEST_F(PoolTest, CellsThatDoNotFitAreRefusedAndTheLadderIsTold) {
  make_pool(kElastic);
  const auto link = worker();
  ASSERT_NE(link, nullptr);
  set_available(1_GiB);  // Nothing above the critical floor.
  const std::uint64_t before = pool_->status().refusals;
  const auto call = generate(*link, 6000);
  EXPECT_TRUE(io_.run_until([&] { return pool_->status().refusals > before; }));
  EXPECT_EQ(pool_->status().cells, 4096U);
  set_available(8_GiB);
  EXPECT_EQ(closing_frame(*call), worker::FrameType::kDone) << "it asks again, and is granted";
}

TEST_F(PoolTest, UnderPressureUnusedCellsComeBack) {
  make_pool(kElastic);
  const auto link = worker();
  ASSERT_NE(link, nullptr);
  const Bytes first = pool_->status().reserved;
  EXPECT_EQ(closing_frame(*generate(*link, 6000)), worker::FrameType::kDone);
  ASSERT_TRUE(io_.run_until([&] { return pool_->status().cells == 8192U; }));
  follow(memory::Level::kSafe, 8_GiB);
  EXPECT_EQ(pool_->status().limits.sequences_max, 2U);
  EXPECT_EQ(pool_->status().limits.step_tokens_max, Pool::kStepTokensMax);
  EXPECT_TRUE(pool_->status().limits.caches_grow);
  for (int i = 0; i < 4; ++i) follow(memory::Level::kWarning, 1536_MiB);
  EXPECT_EQ(pool_->status().limits.sequences_max, 1U);
  EXPECT_LT(pool_->status().limits.step_tokens_max, Pool::kStepTokensMax);
  EXPECT_FALSE(pool_->status().limits.caches_grow);
  EXPECT_TRUE(io_.run_until([&] { return pool_->status().cells == 4096U; }));
  EXPECT_EQ(ledger_.promised(), first);
  EXPECT_TRUE(link->usable());
}

TEST_F(PoolTest, MemoryForParkedStatesIsPromisedFirstAndGivenBackUnderPressure) {
  options_.parked_bytes_max = 256_MiB;
  make_pool("plan_mib 100\n");
  ASSERT_NE(worker(), nullptr);
  follow(memory::Level::kSafe, 8_GiB);
  EXPECT_EQ(pool_->status().limits.parked_bytes_max, 256_MiB);
  EXPECT_EQ(pool_->status().parked_reserved, 256_MiB);
  EXPECT_EQ(ledger_.promised(), 356_MiB);
  for (int i = 0; i < 4; ++i) follow(memory::Level::kWarning, 1536_MiB);
  EXPECT_EQ(pool_->status().limits.parked_bytes_max, Bytes());
  EXPECT_EQ(ledger_.promised(), 356_MiB) << "the worker may not have heard of it yet";
  io_.clock.advance(seconds(2));
  follow(memory::Level::kWarning, 1536_MiB);
  EXPECT_EQ(ledger_.promised(), 100_MiB);
  set_available(3_GiB);
  for (int i = 0; i < 40; ++i) follow(memory::Level::kSafe, 3300_MiB);
  EXPECT_EQ(pool_->status().limits.parked_bytes_max, 64_MiB)
      << "half of what is above the caution floor";
}

TEST_F(PoolTest, AModelTrainedForLessGetsWhatItWasTrainedFor) {
  make_pool("kv_kib_per_token 1\ncontext_tokens 6000\n");
  expect_context(8_GiB, 6000);
  folder_.write("m.script", "context_tokens 1000\n");
  expect_context(8_GiB, 1000);
}

TEST_F(PoolTest, AContextThatTheUserNamedIsTakenOrRefusedButNeverChanged) {
  options_.context_tokens = 16384;
  make_pool("kv_kib_per_token 128\ncontext_tokens 100000\n");
  expect_context(8_GiB, 16384);
  set_available(2_GiB);
  expect_context(2_GiB, 16384);
  source_.set(
      {2_GiB, 3_GiB, "machine"});  // 2 GiB for it and the floor, and then the worker itself.
  io_.clock.advance(milliseconds(100));
  const LoadFailure refused = failure();
  EXPECT_EQ(refused.kind, Kind::kNever);
  EXPECT_NE(refused.message.find("a context of 16384 tokens"), std::string::npos)
      << refused.message;
}

TEST_F(PoolTest, WhatBecameResidentIsNotSubtractedTwice) {
  make_pool("weights_mib 64\nkv_kib_per_token 0\n");
  const auto link = worker();
  ASSERT_NE(link, nullptr);
  const Bytes reserved = pool_->status().reserved;
  ASSERT_TRUE(io_.run_until([&] { return link->last_heartbeat().anonymous >= 60_MiB; }));
  pool_->settle();
  // A sanitizer's own memory is above any estimate, and is booked on top.
  const Bytes excess = pool_->status().reconciliation.excess;
  EXPECT_EQ(ledger_.promised(), Bytes(reserved.count() + excess.count()));
  EXPECT_LE(ledger_.outstanding(), saturating_sub(reserved, 60_MiB));
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

TEST_F(PoolTest, AWorkerThatLeaksIsEndedWhenNobodyUsesIt) {
  make_pool("");
  const pid_t leaking = worker()->pid();
  worker::GenerateRequest request;
  request.prompt.messages = {{engine::Role::kUser, "script: leak 3; say a"}};
  request.output_tokens_max = 4;
  int answered = 0;
  for (; answered < 60 && pool_->status().recycled == 0; ++answered) {
    auto call = worker()->open(worker::FrameType::kGenerate, worker::encode(request)).value();
    EXPECT_EQ(closing_frame(*call), worker::FrameType::kDone);
    call.reset();
    pool_->settle();
  }
  EXPECT_GE(answered, 10) << "a few requests prove nothing";
  EXPECT_EQ(pool_->status().recycled, 1U);
  ASSERT_TRUE(wait_for_state(State::kUnloaded));
  EXPECT_NE(worker()->pid(), leaking);
}

}  // namespace
}  // namespace pensieve::model
