// Pressure stall information: the share of time that tasks waited for memory (Linux).
#pragma once

#include <chrono>
#include <string_view>

#include "base/error.h"

namespace pensieve::memory {

/// Shares in percent, 0 to 100, over the last 10, 60 and 300 s; the kernel updates them every 2 s.
struct Stall {
  double avg10_percent = 0;
  double avg60_percent = 0;
  double avg300_percent = 0;
  std::chrono::microseconds total{0};  // Since boot, or since the group was made.
};

struct Pressure {
  Stall some;  // At least one task waited.
  Stall full;  // All tasks that were not idle waited.
};

/// Text of /proc/pressure/memory or of a v2 group's memory.pressure.
/// Errors: kUnavailable where a line or field is missing, cut short or nonsense.
Result<Pressure> parse_pressure(std::string_view text);

}  // namespace pensieve::memory
