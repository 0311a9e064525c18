// Forecasts of made-up afternoons: each test is a shape of the available memory over time.
#include "memory/forecast.h"

#include <cmath>
#include <functional>
#include <random>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kMiB = 1024.0 * 1024;

Bytes mib(double count) {
  return Bytes(static_cast<std::uint64_t>(std::max(0.0, count) * kMiB));
}

class ForecastTest : public testing::Test {
 protected:
  /// Four readings a second for so long; `shape` says how many MiB are available at a second.
  void run(double for_seconds, const std::function<double(double)>& shape) {
    const int ticks = static_cast<int>(for_seconds * 4);
    for (int tick = 0; tick < ticks; ++tick) {
      forecaster_.observe(mib(shape(tick / 4.0)), now_);
      ever_alert_ = ever_alert_ || forecaster_.forecast().alert;
      now_ += milliseconds(250);
    }
  }
  const Forecast& forecast() const { return forecaster_.forecast(); }
  double seconds_to_critical() const {
    if (!forecast().critical_in) return -1;
    return std::chrono::duration<double>(*forecast().critical_in).count();
  }

  Forecaster forecaster_{Floors()};
  TimePoint now_{};
  bool ever_alert_ = false;
};

TEST_F(ForecastTest, ASteadyFallIsPredictedToTheSecond) {
  run(40, [](double t) { return 4096 - 50 * t; });  // At 40 s: 2096; 1024 after 21.4 s more.
  EXPECT_NEAR(seconds_to_critical(), 21.4, 1.5);
  EXPECT_NEAR(forecast().bytes_per_second / kMiB, -50, 1);
  EXPECT_GT(forecast().confidence, 0.95);
  EXPECT_TRUE(forecast().alert);
  EXPECT_EQ(forecast().alerts, 1U);
  EXPECT_NEAR(std::chrono::duration<double>(forecast().emergency_in.value()).count(), 31.7, 1.5);
  EXPECT_EQ(forecast_text(forecast()).substr(0, 13), "critical-in=2");
}

TEST_F(ForecastTest, AFallThatBeginsAfterCalmIsSeenWithinHalfAMinute) {
  run(60, [](double) { return 6000.0; });
  EXPECT_FALSE(forecast().alert);
  run(30, [](double t) { return 6000 - 60 * t; });
  EXPECT_TRUE(forecast().alert);
  EXPECT_NEAR(forecast().bytes_per_second / kMiB, -60, 20);
}

TEST_F(ForecastTest, BelowCriticalTheForecastIsOfEmergency) {
  run(20, [](double t) { return 1000 - 10 * t; });  // 800 at the end; 512 after 28.8 s.
  EXPECT_EQ(forecast().critical_in, std::nullopt);
  EXPECT_NEAR(std::chrono::duration<double>(forecast().emergency_in.value()).count(), 28.8, 1.5);
  EXPECT_TRUE(forecast_text(forecast()).starts_with("emergency-in="));
}

TEST_F(ForecastTest, NoiseIsNoTrend) {
  std::mt19937 random(1);
  std::normal_distribution<double> noise(0, 80);
  run(600, [&](double) { return 1600 + noise(random); });
  EXPECT_FALSE(ever_alert_);
}

TEST_F(ForecastTest, AFallUnderNoiseIsStillSeen) {
  std::mt19937 random(2);
  std::normal_distribution<double> noise(0, 40);
  run(60, [&](double t) { return 4500 - 40 * t + noise(random); });
  EXPECT_TRUE(forecast().alert);
  EXPECT_NEAR(forecast().bytes_per_second / kMiB, -40, 6);
}

TEST_F(ForecastTest, AProgramThatStartsIsAStepAndNoSlope) {
  run(30, [](double) { return 8000.0; });
  run(120, [](double t) { return 8000 - std::min(1500 * t, 6000.0); });  // 6 GB within 4 s.
  EXPECT_FALSE(ever_alert_);
  EXPECT_NEAR(forecast().bytes_per_second, 0, 1 * kMiB);
}

TEST_F(ForecastTest, SeveralStepsAreStillNoSlope) {
  run(30, [](double) { return 8000.0; });
  run(100, [](double t) { return 8000 - 900 * std::floor(t / 20); });
  EXPECT_FALSE(ever_alert_);
}

TEST_F(ForecastTest, ALeakBesideStepsIsSeen) {
  run(62, [](double t) { return 6000 - 30 * t - (t > 25 ? 1200 : 0); });
  EXPECT_TRUE(forecast().alert);
  EXPECT_NEAR(forecast().bytes_per_second / kMiB, -30, 5);
}

TEST_F(ForecastTest, ASawtoothIsNoTrend) {
  // Falls 400 MiB in 10 s and comes back, for ever, 300 MiB above the critical floor.
  run(300, [](double t) { return 1724 - 40 * std::fmod(t, 10); });
  EXPECT_FALSE(ever_alert_);
}

TEST_F(ForecastTest, WhatIsFurtherAwayThanTwiceWhatWasSeenIsNotPredicted) {
  run(17, [](double t) { return 4096 - 20 * t; });  // Critical in 137 s.
  EXPECT_EQ(forecast().critical_in, std::nullopt);
  EXPECT_FALSE(forecast().alert);
  run(60, [](double t) { return 3756 - 20 * t; });
  EXPECT_NEAR(seconds_to_critical(), 77, 3);
  EXPECT_TRUE(forecast().alert);
}

TEST_F(ForecastTest, AnAlertEndsOnceAfterTheHold) {
  run(40, [](double t) { return 4096 - 50 * t; });
  EXPECT_TRUE(forecast().alert);
  run(50, [](double) { return 8000.0; });
  EXPECT_FALSE(forecast().alert);
  EXPECT_EQ(forecast().alerts, 1U);
  EXPECT_EQ(forecast_text(forecast()), "");
  run(60, [](double t) { return 8000 - 100 * t; });
  EXPECT_TRUE(forecast().alert);
  EXPECT_EQ(forecast().alerts, 2U);
}

TEST_F(ForecastTest, AnAlertDoesNotFlapAroundItsThreshold) {
  // The time to Critical hovers around two minutes.
  run(60, [](double t) { return 4100 - 20 * t; });
  run(120, [](double t) { return 2900 + 40 * std::sin(t / 3) - 4 * t; });
  EXPECT_LE(forecast().alerts, 1U);
}

TEST_F(ForecastTest, WhatLiveRequestsStillOweCounts) {
  forecaster_.set_owed({mib(2000), 40 * kMiB});
  run(20, [](double) { return 3000.0; });
  EXPECT_NEAR(seconds_to_critical(), (3000 - 1024) / 40.0, 1);
  EXPECT_TRUE(forecast().alert);
  EXPECT_DOUBLE_EQ(forecast().confidence, 0.5);
  forecaster_.set_owed({mib(1900), 40 * kMiB});  // It ends above the floor.
  run(2, [](double) { return 3000.0; });
  EXPECT_EQ(forecast().critical_in, std::nullopt);
  forecaster_.set_owed({mib(2000), 0});
  run(2, [](double) { return 3000.0; });
  EXPECT_EQ(forecast().critical_in, std::nullopt) << "nobody takes it";
}

TEST_F(ForecastTest, WhatIsOwedIsNotCountedTwiceWhereTheTrendHasIt) {
  forecaster_.set_owed({mib(5000), 30 * kMiB});
  run(40, [](double t) { return 4096 - 50 * t; });
  EXPECT_NEAR(seconds_to_critical(), 21.4, 1.5);
}

TEST_F(ForecastTest, AGapInTheReadingsIsBridged) {
  run(20, [](double t) { return 4096 - 30 * t; });
  now_ += seconds(10);
  run(20, [](double t) { return 4096 - 30 * (t + 30); });
  EXPECT_NEAR(forecast().bytes_per_second / kMiB, -30, 2);
  now_ += seconds(100);
  run(1, [](double) { return 2000.0; });
  run(3, [](double) { return 2000.0; });
  EXPECT_EQ(forecast().critical_in, std::nullopt) << "all points are old";
}

TEST_F(ForecastTest, FewReadingsMakeNoForecast) {
  run(16, [](double t) { return 2000 - 30 * t; });
  EXPECT_FALSE(ever_alert_);
  run(2, [](double t) { return 1520 - 30 * t; });
  EXPECT_TRUE(ever_alert_);
}

}  // namespace
}  // namespace pensieve::memory
