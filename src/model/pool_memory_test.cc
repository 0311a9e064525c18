// What a pool promises and gives back: windows, cells, parked states, leaks.
#include "model/testing/pool_fixture.h"

#include <signal.h>

namespace pensieve::model {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = LoadFailure::Kind;

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

TEST_F(PoolTest, AWorkerKnowsItsLimitsBeforeItsFirstRequest) {
  options_.parked_bytes_max = 256_MiB;
  options_.stored_bytes_max = 1_GiB;
  make_pool("plan_mib 100\n");
  ASSERT_NE(worker(), nullptr);
  EXPECT_EQ(pool_->status().limits.parked_bytes_max, 256_MiB);
  EXPECT_EQ(pool_->status().limits.stored_bytes_max, 1_GiB);
  EXPECT_EQ(pool_->status().parked_reserved, 256_MiB);
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
