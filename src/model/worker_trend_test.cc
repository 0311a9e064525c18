#include "model/worker_trend.h"

#include <gtest/gtest.h>

namespace pensieve::model {
namespace {

using std::chrono::seconds;

class WorkerTrendTest : public testing::Test {
 protected:
  /// A second passes, then comes a heartbeat.
  void beat(const worker::Heartbeat& heartbeat, std::uint64_t requests_ended = 0) {
    now_ += seconds(1);
    trend_.observe(heartbeat,
                   {.kv_per_cell = Bytes(1024),
                    .promised = 100_MiB,
                    .cells_max = 100'000,
                    .requests_ended = requests_ended},
                   now_);
  }

  WorkerTrend trend_;
  TimePoint now_{};
};

TEST_F(WorkerTrendTest, MemoryThatGrowsWithRequestsIsALeak) {
  worker::Heartbeat heartbeat;
  for (std::uint64_t request = 0; request < 40; ++request) {
    heartbeat.anonymous = Bytes((100 + 5 * request) << 20);
    beat(heartbeat, request);
  }
  ASSERT_TRUE(trend_.leak().has_value());
  EXPECT_GE(trend_.leak()->grown, 32_MiB);
}

TEST_F(WorkerTrendTest, WhatFillsUpWhatWasPromisedIsNoneAndOneThatGoesBeyondIs) {
  worker::Heartbeat heartbeat;
  std::uint64_t request = 0;
  for (; request < 40; ++request) {  // Grammars that are kept, say: 20 to 98 MiB.
    heartbeat.anonymous = Bytes((20 + 2 * request) << 20);
    beat(heartbeat, request);
  }
  EXPECT_FALSE(trend_.leak().has_value());
  for (; request < 70; ++request) {
    heartbeat.anonymous = Bytes((20 + 2 * request) << 20);
    beat(heartbeat, request);
  }
  EXPECT_TRUE(trend_.leak().has_value());
}

TEST_F(WorkerTrendTest, AGrowingCacheAndParkedStatesAreNone) {
  worker::Heartbeat heartbeat;
  for (std::uint64_t request = 0; request < 40; ++request) {
    heartbeat.cells = static_cast<std::uint32_t>(1000 + 2048 * request);
    heartbeat.parked_bytes = Bytes((3 * request) << 20);
    heartbeat.anonymous =
        Bytes((100 << 20) + heartbeat.cells * 1024ULL + heartbeat.parked_bytes.count());
    beat(heartbeat, request);
  }
  EXPECT_FALSE(trend_.leak().has_value());
}

TEST_F(WorkerTrendTest, RunningRequestsOweTheCellsThatThereAreNotYetAtTheirPace) {
  worker::Heartbeat heartbeat;
  heartbeat.running = 1;
  heartbeat.cells = 4096;
  for (std::uint32_t second = 0; second < 10; ++second) {
    heartbeat.cells_used = 50 * second;
    beat(heartbeat);
  }
  EXPECT_EQ(trend_.owed().left, Bytes((100'000 - 4096) * 1024ULL));
  EXPECT_NEAR(trend_.owed().bytes_per_second, 50 * 1024, 1);
}

TEST_F(WorkerTrendTest, NothingIsOwedWhereNobodyRunsOrTheCacheIsWhole) {
  worker::Heartbeat heartbeat;
  heartbeat.cells = 4096;
  heartbeat.cells_used = 10;
  beat(heartbeat);
  heartbeat.cells_used = 20;
  beat(heartbeat);
  EXPECT_EQ(trend_.owed().left, Bytes());
  heartbeat.running = 1;
  heartbeat.cells = 100'000;
  beat(heartbeat);
  EXPECT_EQ(trend_.owed().left, Bytes());
  EXPECT_EQ(trend_.owed().bytes_per_second, 0);
}

}  // namespace
}  // namespace pensieve::model
