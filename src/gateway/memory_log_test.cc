#include "gateway/memory_log.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

namespace pensieve::gateway {
namespace {

memory::Monitor::Status at(memory::Level level) {
  memory::Monitor::Status status;
  status.level = level;
  status.measured = level;
  status.available = 1536_MiB;
  status.total = 16_GiB;
  status.limited_by = "machine";
  return status;
}

class MemoryLogTest : public testing::Test {
 protected:
  std::string lines_of(const memory::Monitor::Status& status,
                       const memory::Forecast& forecast = {}) {
    testing::internal::CaptureStderr();
    log_.note(status, forecast);
    return testing::internal::GetCapturedStderr();
  }

  MemoryLog log_;
};

TEST_F(MemoryLogTest, ALevelIsLoggedWhenItChangesAndNotAtStart) {
  EXPECT_EQ(lines_of(at(memory::Level::kSafe)), "");
  EXPECT_EQ(lines_of(at(memory::Level::kSafe)), "");
  const std::string line = lines_of(at(memory::Level::kWarning));
  EXPECT_NE(line.find("memory level Warning: 1.50GB available, limited by machine"),
            std::string::npos)
      << line;
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  EXPECT_EQ(lines_of(at(memory::Level::kWarning)), "");
}

TEST_F(MemoryLogTest, ALevelThatSignalsMadeWorseIsLoggedWithTheReason) {
  lines_of(at(memory::Level::kSafe));
  memory::Monitor::Status status = at(memory::Level::kCritical);
  status.worsened_by = "tasks waited";
  EXPECT_NE(lines_of(status).find("; worsened: tasks waited"), std::string::npos);
}

TEST_F(MemoryLogTest, AnUnreadableSignalIsLoggedOnceAndOnlyBelowSafe) {
  memory::Monitor::Status status = at(memory::Level::kSafe);
  status.signals.emplace().stalls.unreadable = "memory.pressure is gone";
  EXPECT_EQ(lines_of(status), "");
  status.level = status.measured = memory::Level::kCaution;
  EXPECT_NE(lines_of(status).find("memory.pressure is gone"), std::string::npos);
  EXPECT_EQ(lines_of(status), "");
  status.signals->stalls.unreadable.clear();
  EXPECT_NE(lines_of(status).find("can be read again"), std::string::npos);
  EXPECT_EQ(lines_of(status), "");
}

TEST_F(MemoryLogTest, AForecastsAlertIsLoggedOnceWhenItBeginsAndOnceWhenItEnds) {
  const memory::Monitor::Status status = at(memory::Level::kSafe);
  memory::Forecast forecast;
  forecast.critical_in = std::chrono::seconds(42);
  EXPECT_EQ(lines_of(status, forecast), "") << "no alert yet";
  forecast.alert = true;
  EXPECT_NE(lines_of(status, forecast).find("memory forecast: critical-in=42s"), std::string::npos);
  EXPECT_EQ(lines_of(status, forecast), "");
  EXPECT_NE(lines_of(status).find("no floor is in sight any more"), std::string::npos);
  EXPECT_EQ(lines_of(status), "");
}

}  // namespace
}  // namespace pensieve::gateway
