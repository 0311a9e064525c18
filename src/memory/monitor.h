// Watches the available memory and says how safe it is to take on more work.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/level.h"
#include "memory/memory_source.h"

namespace pensieve::memory {

/// Turns single readings into a Level that admission can rely on.
///
/// Fails towards refusing: until the first reading, and whenever the last good one is older than
/// `stale_after`, the level is at least kLevelWhenUnknown. A source that dies can therefore never
/// leave the gateway admitting work on a figure from better times. An absurd reading (no total, or
/// more available than there is) counts as a failed one.
///
/// Ownership: borrows `source` and `clock`; both must outlive the monitor.
/// Thread-safety: sample() and check() read the source and are called from one thread at a time
/// (the gateway's io thread calls both); status() from any thread, and it never waits for a read.
/// Errors: none are returned. A failed read is counted, and shows in status() once it is stale.
class Monitor {
 public:
  /// How often sample() should be called at least. Relief is noticed at most this long after it
  /// came, and the end of the hold as late again: 250 ms + recovery_hold + 250 ms < 2 s.
  static constexpr Duration kSampleEvery = std::chrono::milliseconds(250);

  struct Options {
    Floors floors;
    Duration stale_after = std::chrono::seconds(3);
    Duration recovery_hold = std::chrono::seconds(1);
    /// check() goes without a reading of its own where the last attempt is not older than this.
    Duration fresh_for = std::chrono::milliseconds(10);
  };

  struct Status {
    Level level = kLevelWhenUnknown;
    /// The last reading was better than `level`, which holds on for recovery_hold.
    bool recovering = false;
    std::optional<Bytes> available;  // Empty where we do not know; never a guess, never zero.
    std::optional<Bytes> total;      // Known exactly where `available` is.
    std::string limited_by;          // As in Reading; empty where we do not know.
    std::uint64_t failed_reads = 0;  // Since start.
    std::string last_failure;        // Why the last attempt failed; empty where it did not.
  };

  /// REQUIRES: options.floors.ordered(), stale_after and recovery_hold above zero, fresh_for not
  /// below zero. Aborts otherwise.
  Monitor(MemorySource& source, const Clock& clock, const Options& options);

  /// Takes one reading. Called every kSampleEvery or more often.
  void sample();

  /// For the request path: sample() if the last attempt, good or failed, is older than
  /// `fresh_for`; then status(). So a burst of requests costs one reading, also while readings
  /// fail. After a failed reading the last good one goes on ageing up to `stale_after`.
  Status check();

  Status status() const;

 private:
  struct Sample {
    Reading reading;
    TimePoint taken_at;
  };

  bool attempted_lately() const;

  MemorySource& source_;
  const Clock& clock_;
  const Options options_;

  mutable std::mutex mutex_;
  LevelTracker tracker_;                   // Guarded by mutex_, as is all below.
  std::optional<Sample> last_good_;        // The last good reading.
  std::optional<TimePoint> last_attempt_;  // Start of the last reading, good or failed.
  std::uint64_t failed_reads_ = 0;
  std::string last_failure_;
};

}  // namespace pensieve::memory
