// What says that memory is short although the available figure does not: stalls, swapping, limits
// that were hit. Pure: from raw counters to signals, and from signals to a level.
//
// A signal may only make a level worse, and only where the available memory is below Safe already.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "memory/level.h"
#include "memory/psi.h"
#include "memory/rate_window.h"
#include "memory/signal_source.h"

namespace pensieve::memory {

/// One signal as it stands. Both parts empty: this machine has no such signal, and we know that.
template <class T>
struct Signal {
  std::optional<T> value;  // The last good one where `unreadable` says why there is no newer.
  std::string unreadable;  // Why it could not be read; empty where it could, or is absent.
};

/// Share of the time in which tasks waited for memory: the smaller of what the last 10 s and the
/// last 2 s say. The first tells pressure from a blip, the second that it still goes on: the
/// kernel's average needs 14 s to fall from 40 to 10 %, and would refuse long after relief.
struct Stalls {
  double some_percent = 0;  // At least one task waited.
  double full_percent = 0;  // All tasks that were not idle waited.
  Scope scope = Scope::kOwn;
  std::string where;
};

struct SwapIn {
  std::optional<double> pages_per_second;  // Empty until two readings lie far enough apart.
  Scope scope = Scope::kOwn;
  std::string where;
};

/// What has happened to our group within the last kEventLasts.
struct GroupEvents {
  bool limit_reached = false;    // The kernel had to reclaim, or to slow us down.
  bool protection_lost = false;  // Memory below memory.low was taken: others are short.
  bool out_of_memory = false;    // Reclaim found nothing: the kernel's killer came, or waits.
  std::string where;
};

struct Signals {
  Signal<Stalls> stalls;
  Signal<SwapIn> swap_in;
  Signal<GroupEvents> events;
  Signal<KernelVerdict> verdict;  // macOS.

  bool any_unreadable() const;
};

/// For logs: "stalls some 3.1 % full 0.0 % (cgroup /a), swap-in 0 pages/s (machine), ...".
std::string describe(const Signals& signals);

/// Why, in words, for each signal that could not be read; empty where there is none.
std::string unreadable_signals(const Signals& signals);

// Thresholds. Half of them follow from one idea: a stall of a tenth of the time is where people and
// programs begin to notice, and where reclaim does not keep up any more; below that the kernel is
// only doing its work.

/// Own group, all tasks waited at the same time. 40 % is two thirds of what systemd-oomd kills at
/// (60 % for 30 s): at that share nothing of ours gets on, so it counts two levels.
inline constexpr double kFullPercent = 10;
inline constexpr double kFullPercentSevere = 40;
/// Own group, any task waited. Twice the above, because one task may wait for itself alone (a
/// tokeniser that reads its tables); yet engine threads meet after each operation, so that one of
/// them that waits stops all, and `full` never shows it: the others spin.
inline constexpr double kSomePercent = 20;
/// The same where the group's limit was reached as well. Alone neither says anything: page cache
/// fills any group up to its limit without harm, and a stall of 5 % may be a program that starts.
inline constexpr double kSomePercentAtLimit = 5;
/// 4 MiB/s. A page comes back from an SSD in about 100 µs, so this is a tenth of one task's time;
/// what was swapped out while a laptop slept comes back in bursts that are over within the window.
inline constexpr double kSwapInPagesPerSecond = 1000;
/// How long an event counts. The window of PSI's shortest average.
inline constexpr Duration kEventLasts = std::chrono::seconds(10);
/// Signals never add more than this, whatever they say.
inline constexpr unsigned kWorsenedLevelsMax = 2;

struct Worsened {
  Level level = kLevelWhenUnknown;
  std::string by;  // In words; empty where the level is the measured one.
};

/// The level once the signals have been heard. Never better than `measured`; the same at Safe.
///
/// The strongest signal counts, not the sum: they are sights of one thing. Signals of our own group
/// add one level, or two where our tasks do nothing but wait; they reach Emergency, where running
/// work ends, only from Critical. Signals of the whole machine are heard only where the machine
/// itself is what limits us (`machine_limits`), add one level, and do not go beyond Warning:
/// another container's pressure is no reason to refuse anybody. Only stalls and swapping together
/// may make them Critical: the device that another's pages come back from is the one for ours too.
///
/// A signal that is there and cannot be read counts as it did last, and as one level at least.
Worsened worsen(Level measured, const Signals& signals, bool machine_limits);

/// Makes signals of raw counters. Bounded: a few windows of RateWindow::kPointsMax points.
///
/// Thread-safety: one thread at a time.
class SignalTracker {
 public:
  /// REQUIRES: `at` is not before the `at` of the previous call.
  void observe(const RawSignals& raw, TimePoint at);

  const Signals& signals() const { return signals_; }
  /// The same where nobody has looked for too long: each that this machine has is unreadable.
  Signals outdated() const;

 private:
  void observe_stalls(const RawPressure& raw, TimePoint at);
  void observe_swap_in(const RawSwapIn& raw, TimePoint at);
  void observe_events(const RawEvents& raw, TimePoint at);

  Signals signals_;
  RateWindow some_{std::chrono::seconds(2)};
  RateWindow full_{std::chrono::seconds(2)};
  RateWindow swap_{std::chrono::seconds(4)};
  std::optional<RawEvents> last_events_;
  std::optional<TimePoint> limit_reached_at_;
  std::optional<TimePoint> protection_lost_at_;
  std::optional<TimePoint> out_of_memory_at_;
};

}  // namespace pensieve::memory
