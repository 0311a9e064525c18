// How fast a counter of the kernel rises, over the last few seconds. Pure.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace pensieve::memory {

/// Keeps the last points of a counter that only rises, at most kPointsMax of them, and none that
/// is older than needed to cover `span`.
class RateWindow {
 public:
  static constexpr std::size_t kPointsMax = 16;

  constexpr explicit RateWindow(Duration span) : span_(span) {}

  /// A count that is lower than the last one starts anew: it is another group's counter.
  /// REQUIRES: `at` is not before the `at` of the previous call.
  constexpr void add(std::uint64_t count, TimePoint at) {
    if (size_ > 0 && count < points_[size_ - 1].count) size_ = 0;
    // Points closer together than an eighth of the span tell nothing more: the newest moves.
    if (size_ > 1 && at - points_[size_ - 2].at < span_ / 8) --size_;
    if (size_ == kPointsMax) drop_oldest();
    points_[size_++] = {count, at};
    while (size_ > 2 && at - points_[1].at >= span_) drop_oldest();
  }

  /// Per second, between the oldest and the newest point. Empty where they are less than a
  /// sixteenth of the span apart: one burst between two quick looks is no rate.
  constexpr std::optional<double> per_second() const {
    if (size_ < 2) return std::nullopt;
    const Point& first = points_[0];
    const Point& last = points_[size_ - 1];
    if (last.at - first.at < span_ / 16) return std::nullopt;
    const double seconds = std::chrono::duration<double>(last.at - first.at).count();
    return static_cast<double>(last.count - first.count) / seconds;
  }

  constexpr void reset() { size_ = 0; }

 private:
  struct Point {
    std::uint64_t count = 0;
    TimePoint at{};
  };

  constexpr void drop_oldest() {
    std::copy(points_.begin() + 1, points_.end(), points_.begin());
    --size_;
  }

  Duration span_;
  std::array<Point, kPointsMax> points_{};
  std::size_t size_ = 0;
};

}  // namespace pensieve::memory
