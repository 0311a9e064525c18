// The only place the program asks for the time; see base/testing/fake_clock.h for tests.
#pragma once

#include <chrono>
#include <string>

namespace pensieve {

using Duration = std::chrono::steady_clock::duration;
using TimePoint = std::chrono::steady_clock::time_point;

/// A monotonic clock. `./dev check` rejects steady_clock::now() and sleep_for() elsewhere, so
/// every timeout, keep-alive and staleness rule can be tested by moving a FakeClock.
///
/// Thread-safety: now() may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
};

/// The machine's monotonic clock; lives as long as the program.
const Clock& steady_clock();

/// The time of day, for what people read and what outlives the process; never for a wait.
using WallTime = std::chrono::sys_seconds;
WallTime wall_time();
/// "2026-01-31T23:59:59Z".
std::string rfc3339(WallTime time);

/// What timers (base/timer.h) take for the time: steady_clock(), or what a ScopedTimerClock of this
/// thread says. Has the names that the standard asks of a clock.
struct TimerClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = TimePoint;
  static constexpr bool is_steady = true;

  static time_point now();
};

/// Lets the timers of this thread follow `clock` as long as it lives, so that a simulation moves
/// them too: io_context::poll() runs what is due by it (with testing/no_timerfd.cc in the program).
///
/// Ownership: borrows `clock`. One at a time on a thread.
class ScopedTimerClock {
 public:
  explicit ScopedTimerClock(const Clock& clock);
  ~ScopedTimerClock();
  ScopedTimerClock(const ScopedTimerClock&) = delete;
  ScopedTimerClock& operator=(const ScopedTimerClock&) = delete;
};

}  // namespace pensieve
