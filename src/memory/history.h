// What the memory has been like: the last hour second by second, the last day minute by minute.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/level.h"

namespace pensieve::memory {

/// One second or minute.
struct HistoryEntry {
  Bytes available_min;
  Bytes available_avg;
  Bytes available_max;
  Bytes held;                       // Anonymous memory of our workers, at the end.
  Level level = kLevelWhenUnknown;  // The worst.
};

/// A ring of entries of one length each. Figures are kept to 64 KiB, rounded down: 20 bytes per
/// entry, up to 256 TiB.
///
/// Thread-safety: one thread at a time.
class HistoryRing {
 public:
  HistoryRing(Duration step, std::size_t entries_max) : step_(step), slots_(entries_max) {}

  /// REQUIRES: `now` is not before the `now` of the previous call.
  void record(const std::optional<Bytes>& available, Level level, Bytes held, TimePoint now);

  /// Oldest first, one per step, at most entries_max; the last one is the running step. Empty where
  /// nothing was known in a step (no reading, or the machine slept).
  std::vector<std::optional<HistoryEntry>> entries() const;

  Duration step() const { return step_; }

 private:
  struct Slot {
    std::uint32_t min = 0;
    std::uint32_t avg = 0;
    std::uint32_t max = 0;
    std::uint32_t held = 0;
    Level level = Level::kSafe;
    bool known = false;
  };
  static_assert(sizeof(Slot) == 20);

  Slot& slot(std::int64_t index) { return slots_[static_cast<std::size_t>(index) % slots_.size()]; }

  Duration step_;
  std::vector<Slot> slots_;
  std::optional<TimePoint> first_at_;
  std::int64_t index_ = 0;  // Of the running step, counted from the first.
  std::uint64_t sum_ = 0;   // Of its readings.
  std::uint32_t count_ = 0;
};

/// Bounded: 100,800 bytes for ever, 3,600 and 1,440 entries of 20.
class History {
 public:
  static constexpr std::size_t kHourEntries = 3600;
  static constexpr std::size_t kDayEntries = 1440;

  void record(const std::optional<Bytes>& available, Level level, Bytes held, TimePoint now) {
    hour_.record(available, level, held, now);
    day_.record(available, level, held, now);
  }

  const HistoryRing& hour() const { return hour_; }
  const HistoryRing& day() const { return day_; }

 private:
  HistoryRing hour_{std::chrono::seconds(1), kHourEntries};
  HistoryRing day_{std::chrono::minutes(1), kDayEntries};
};

}  // namespace pensieve::memory
