// When will memory be Critical if it goes on like this? Pure: readings with their time come in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/level.h"

namespace pensieve::memory {

/// What requests that run now may still take: memory that is theirs by promise, and not yet used.
struct Owed {
  Bytes left;
  double bytes_per_second = 0;  // At which they take it lately.
};

struct Forecast {
  /// Until the floor is crossed; empty: not in sight, or crossed already.
  std::optional<Duration> critical_in;
  std::optional<Duration> emergency_in;
  double bytes_per_second = 0;  // The trend of the available memory; negative: it falls.
  /// 0 to 1: the share of pairs of points that say "falling", less that of those that say "rising".
  double confidence = 0;

  /// A floor will be crossed soon enough to say so. Entered and left once per episode.
  bool alert = false;
  std::uint64_t alerts = 0;  // Since start.
};

/// For the header `x-memory-forecast` and for people: "critical-in=42s", "emergency-in=5s"; empty
/// where there is no alert, or nothing is in sight any more and the alert is about to end.
std::string forecast_text(const Forecast& forecast);

/// Predicts from the lowest reading of each of the last kPointsMax seconds.
///
/// The slope is the median of the slopes of all pairs of points (Theil–Sen): it takes many wrong
/// points to turn it. It is taken over the last 16, 32 and 60 points, and the soonest crossing
/// counts: the short windows see at once that a fall has begun, the long one sees through noise.
/// Before that, steps are taken out: a program that starts takes its memory within seconds and no
/// more, and says nothing about the next minute. Steps upwards stay in: what falls and comes back
/// is no trend.
///
/// What is predicted never reaches further than twice the time that was looked at. A slope of 15 s
/// says nothing of the minute after next, and this alone keeps most false alarms away.
///
/// Bounded: kPointsMax points; about 50 µs once per second, nothing between.
/// Thread-safety: one thread at a time.
class Forecaster {
 public:
  static constexpr std::size_t kPointsMax = 60;
  static constexpr std::array<std::size_t, 3> kWindowPoints{16, 32, kPointsMax};
  /// A fall within so many seconds is a step, if it stops then. Choice: programs start in that
  /// time.
  static constexpr std::size_t kStepPointsMax = 5;
  /// An alert begins when a floor is nearer than this. Choice: time to close a program.
  static constexpr Duration kAlertWithin = std::chrono::seconds(120);
  /// It ends when none has been nearer than half as much again for this long.
  static constexpr Duration kAlertHold = std::chrono::seconds(10);

  explicit Forecaster(const Floors& floors) : floors_(floors) {}

  /// A good reading. Failed ones are not told: time without a point is bridged.
  /// REQUIRES: `now` is not before the `now` of the previous call.
  void observe(Bytes available, TimePoint now);
  void set_owed(const Owed& owed) { owed_ = owed; }

  const Forecast& forecast() const { return forecast_; }

 private:
  struct Point {
    double seconds = 0;  // Since the first reading.
    double bytes = 0;
  };
  struct Trend {
    double bytes_per_second = 0;
    double confidence = 0;
    double span_seconds = 0;
  };

  void close_second();
  Trend trend(std::size_t points) const;
  Forecast predict() const;
  std::optional<Duration> crossing(Bytes floor, const Trend* trend) const;
  void update_alert(TimePoint now);

  Floors floors_;
  Owed owed_;
  std::array<Point, kPointsMax> points_{};  // Oldest first.
  std::size_t size_ = 0;
  std::optional<TimePoint> first_at_;
  std::int64_t second_ = 0;  // The one that is being filled.
  Bytes lowest_;             // Of that second.
  Bytes last_;
  Forecast forecast_;
  std::optional<TimePoint> calm_since_;
};

}  // namespace pensieve::memory
