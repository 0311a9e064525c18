// The only place the program asks for the time; see base/testing/fake_clock.h for tests.
#pragma once

#include <chrono>

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

}  // namespace pensieve
