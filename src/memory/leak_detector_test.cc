#include "memory/leak_detector.h"

#include <cmath>
#include <functional>
#include <random>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

Bytes mib(double count) {
  return Bytes(static_cast<std::uint64_t>(count * 1024 * 1024));
}

/// Answers requests one by one until a leak is found; `held` is what the worker holds, in MiB,
/// after so many. Returns how many it took, or zero where there was none after `most`.
std::uint64_t requests_until_found(
    std::uint64_t most, const std::function<double(double)>& held,
    const std::function<double(double)>& explained = [](double) { return 0.0; }) {
  LeakDetector detector;
  for (std::uint64_t request = 0; request <= most; ++request) {
    const auto count = static_cast<double>(request);
    detector.observe(mib(held(count)), mib(explained(count)), request);
    if (detector.leak()) return request;
  }
  return 0;
}

TEST(LeakDetectorTest, MemoryThatGrowsWithEveryRequestIsALeak) {
  const std::uint64_t found = requests_until_found(100, [](double n) { return 500 + 10 * n; });
  EXPECT_GT(found, 0U);
  EXPECT_LE(found, 20U);
}

TEST(LeakDetectorTest, ASmallLeakIsFoundAfterMoreRequests) {
  const std::uint64_t found = requests_until_found(10000, [](double n) { return 500 + 0.05 * n; });
  EXPECT_GT(found, 600U) << "before, it has not grown by 32 MiB";
  EXPECT_LE(found, 2000U);
}

TEST(LeakDetectorTest, SteadyMemoryIsNone) {
  EXPECT_EQ(requests_until_found(10000, [](double) { return 500.0; }), 0U);
}

TEST(LeakDetectorTest, GrowthByCachesTheLedgerKnowsOfIsNone) {
  EXPECT_EQ(requests_until_found(
                1000, [](double n) { return 500 + 10 * n; }, [](double n) { return 10 * n; }),
            0U);
}

TEST(LeakDetectorTest, AHeapThatFillsUpToWhatItNeedsIsNone) {
  EXPECT_EQ(
      requests_until_found(10000, [](double n) { return 500 + 300 * (1 - std::exp(-n / 6)); }), 0U);
}

TEST(LeakDetectorTest, OneLargeRequestIsNone) {
  EXPECT_EQ(requests_until_found(1000, [](double n) { return n < 40 ? 500.0 : 900.0; }), 0U);
}

TEST(LeakDetectorTest, WhatIsGivenBackBetweenRequestsIsNone) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> taken(0, 400);
  LeakDetector detector;
  for (std::uint64_t request = 0; request < 2000; ++request) {
    detector.observe(mib(500 + taken(random)), Bytes(), request);  // While it runs.
    detector.observe(mib(500), Bytes(), request);                  // Between two.
  }
  EXPECT_FALSE(detector.leak().has_value());
}

TEST(LeakDetectorTest, ALeakUnderRequestsThatComeAndGoIsFound) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> taken(0, 400);
  LeakDetector detector;
  std::uint64_t request = 0;
  for (; request < 200 && !detector.leak(); ++request) {
    const double leaked = 5 * static_cast<double>(request);
    detector.observe(mib(500 + leaked + taken(random)), Bytes(), request);
    detector.observe(mib(500 + leaked), Bytes(), request);
  }
  ASSERT_TRUE(detector.leak().has_value());
  EXPECT_LE(request, 40U);
  EXPECT_GE(detector.leak()->grown, 32_MiB);
}

TEST(LeakDetectorTest, ManyRequestsBetweenTwoLooksAreBorne) {
  LeakDetector detector;
  for (std::uint64_t look = 0; look < 2000; ++look) {
    detector.observe(mib(500), Bytes(), look * 1000);
  }
  EXPECT_FALSE(detector.leak().has_value());
  LeakDetector leaking;
  for (std::uint64_t look = 0; look < 2000 && !leaking.leak(); ++look) {
    leaking.observe(mib(500 + 10 * static_cast<double>(look)), Bytes(), look * 1000);
  }
  EXPECT_TRUE(leaking.leak().has_value());
}

}  // namespace
}  // namespace pensieve::memory
