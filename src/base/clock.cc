#include "base/clock.h"

#include <ctime>

#include <fmt/chrono.h>

#include "base/error.h"

namespace pensieve {
namespace {

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

thread_local const Clock* timer_clock = nullptr;  // Null: the machine's.

}  // namespace

const Clock& steady_clock() {
  static const SteadyClock clock;
  return clock;
}

WallTime wall_time() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

std::string rfc3339(WallTime time) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(static_cast<std::time_t>(time.time_since_epoch().count())));
}

TimePoint TimerClock::now() {
  return timer_clock != nullptr ? timer_clock->now() : std::chrono::steady_clock::now();
}

ScopedTimerClock::ScopedTimerClock(const Clock& clock) {
  PENSIEVE_CHECK(timer_clock == nullptr);
  timer_clock = &clock;
}

ScopedTimerClock::~ScopedTimerClock() {
  timer_clock = nullptr;
}

}  // namespace pensieve
