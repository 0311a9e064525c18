// Watches the available memory and says how safe it is to take on more work.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/forecast.h"
#include "memory/history.h"
#include "memory/level.h"
#include "memory/memory_source.h"
#include "memory/signal_source.h"
#include "memory/signals.h"

namespace pensieve::memory {

/// Turns single readings into a Level that admission can rely on.
///
/// Fails towards refusing: until the first reading, and whenever the last good one is older than
/// `stale_after`, the level is at least kLevelWhenUnknown. A source that dies can therefore never
/// leave the gateway admitting work on a figure from better times. An absurd reading (no total, or
/// more available than there is) counts as a failed one.
///
/// Beside the available figure it hears signals (memory/signals.h), which only worsen the level.
///
/// Ownership: borrows `source`, `signals` and `clock`; all must outlive the monitor.
/// Thread-safety: sample() and check() read the sources and are called from one thread at a time
/// (the gateway's io thread calls both); status() from any thread, and it never waits for a read.
/// Errors: none are returned. A failed read is counted, and shows in status() once it is stale.
class Monitor {
 public:
  /// How often sample() should be called at least, see sample_interval(). Relief is noticed at most
  /// this long after it came, and the end of the hold as late: 250 ms + recovery_hold + 250 ms < 2
  /// s.
  static constexpr Duration kSampleEvery = std::chrono::milliseconds(250);
  /// The shortest interval. Choice: below the 50 ms within which a crossing has to be noticed, by
  /// what a timer may be late. A sample costs about 0.1 ms, so this is 0.3 % of one core.
  static constexpr Duration kSampleEveryLeast = std::chrono::milliseconds(40);
  /// Signals are read in sample(), not more often than this: PSI's averages move every 2 s.
  static constexpr Duration kSignalsEvery = std::chrono::milliseconds(250);

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
    std::optional<Bytes> available;      // Empty where we do not know; never a guess, never zero.
    std::optional<Bytes> total;          // Known exactly where `available` is.
    std::string limited_by;              // As in Reading; empty where we do not know.
    Level measured = kLevelWhenUnknown;  // By the last reading alone: no hold, no signals.
    std::string worsened_by;  // The signals that made the last reading count as worse, in words.
    std::optional<Signals> signals;  // As last read; empty where nobody looks at any.
    Floors floors;                   // What `level` was measured against.
    std::uint64_t failed_reads = 0;  // Since start.
    std::string last_failure;        // Why the last attempt failed; empty where it did not.

    /// What a promise may be made on: `available`, but only where the last attempt to read it
    /// succeeded. While readings fail, the last good one serves for admission up to `stale_after`;
    /// but others may have taken gigabytes meanwhile, and nothing looks at a promise again.
    std::optional<Bytes> promisable() const {
      return last_failure.empty() ? available : std::nullopt;
    }
  };

  /// REQUIRES: options.floors.ordered(), stale_after and recovery_hold above zero, fresh_for not
  /// below zero. Aborts otherwise.
  /// Without `signals` (null), the level goes by the available memory alone.
  Monitor(MemorySource& source, SignalSource* signals, const Clock& clock, const Options& options);
  Monitor(MemorySource& source, const Clock& clock, const Options& options)
      : Monitor(source, nullptr, clock, options) {}

  /// Takes one reading, and the signals where those are due. Called every sample_interval().
  void sample();

  /// When the next sample() is due: so soon that a floor is seen to be crossed at most
  /// kSampleEveryLeast later, by whoever takes memory no faster than kFastestTaker. Between
  /// kSampleEveryLeast and kSampleEvery.
  Duration sample_interval() const;

  /// Bytes per second. All cores of a desktop together zero pages at about this rate: 2 GiB, from
  /// Safe down to Critical by default, take a quarter of a second.
  static constexpr Bytes kFastestTaker = 8_GiB;

  /// For the request path: sample() if the last attempt, good or failed, is older than
  /// `fresh_for`; then status(). So a burst of requests costs one reading, also while readings
  /// fail. After a failed reading the last good one goes on ageing up to `stale_after`.
  Status check();

  Status status() const;

  /// What will be if memory goes on like this. From any thread, as status().
  Forecast forecast() const;
  /// What live requests may still take; goes into the forecast from the next second on.
  void set_owed(const Owed& owed);

  /// The last hour and day. By the thread that samples only.
  const History& history() const { return history_; }
  /// What our workers hold, for the history. By the thread that samples only.
  void set_held(Bytes held) { held_ = held; }

 private:
  struct Sample {
    Reading reading;
    TimePoint taken_at;
  };

  bool attempted_lately() const;
  void read_signals_if_due();
  void take_reading();
  Worsened judge(const Reading& reading, TimePoint now) const;

  MemorySource& source_;
  SignalSource* const signal_source_;  // Null: none.
  const Clock& clock_;
  const Options options_;

  mutable std::mutex mutex_;
  LevelTracker tracker_;  // Guarded by mutex_, as is all below.
  SignalTracker signal_tracker_;
  std::optional<TimePoint> signals_at_;    // Start of the last look at the signals.
  Worsened judged_;                        // The last good reading with the signals of its time.
  std::optional<Sample> last_good_;        // The last good reading.
  std::optional<TimePoint> last_attempt_;  // Start of the last reading, good or failed.
  std::uint64_t failed_reads_ = 0;
  std::string last_failure_;
  Forecaster forecaster_;

  History history_;  // Not guarded, as held_: the sampling thread's.
  Bytes held_;
};

/// For the log, in one line: available, total, what limits it, level, what worsened it, the
/// floor that counts, signals. So that each refusal can be argued with afterwards.
std::string describe(const Monitor::Status& status);

}  // namespace pensieve::memory
