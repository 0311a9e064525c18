#include "memory/forecast.h"

#include <algorithm>
#include <cmath>
#include <span>

#include <fmt/core.h>

namespace pensieve::memory {
namespace {

/// Less than this per second is standing still: page cache and small programs come and go.
constexpr double kFlatBytesPerSecond = 128.0 * 1024;
/// A fall of less than this per second is never taken for a step. Choice: noise of a desktop.
constexpr double kStepBytesPerSecond = 32.0 * 1024 * 1024;
/// How far from the usual change a step is, in median absolute deviations. 6 MAD are about 4
/// standard deviations of normal noise.
constexpr double kStepDeviations = 6;
/// Least confidence for a trend over all 60 points, and over a shorter window, which noise and saw
/// teeth fool more easily. With 60 points, 0.5 is reached when 18 s of a steady fall are seen.
constexpr double kConfidenceLeast = 0.5;
constexpr double kConfidenceLeastShort = 0.8;
/// A prediction reaches this many times as far as the points do.
constexpr double kReach = 2;
/// Live requests may take all that they are promised, or end with the next token.
constexpr double kConfidenceOwed = 0.5;

constexpr std::size_t kPairsMax = Forecaster::kPointsMax * (Forecaster::kPointsMax - 1) / 2;

/// REQUIRES: values is not empty. Reorders them.
double median(std::span<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Duration duration_of(double seconds) {
  // Beyond days nobody cares, and a slope near zero must not overflow.
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(std::min(seconds, 1e6)));
}

/// Replaces changes that belong to a step by the usual change. `changes` are per second.
void take_out_steps(std::span<double> changes) {
  std::array<double, Forecaster::kPointsMax> scratch{};
  const std::span<double> work(scratch.data(), changes.size());
  for (std::size_t i = 0; i < changes.size(); ++i) work[i] = changes[i];
  const double usual = median(work);
  for (std::size_t i = 0; i < changes.size(); ++i) work[i] = std::abs(changes[i] - usual);
  const double limit = std::max(kStepDeviations * median(work), kStepBytesPerSecond);
  for (std::size_t begin = 0; begin < changes.size();) {
    std::size_t end = begin;
    while (end < changes.size() && usual - changes[end] > limit) ++end;
    // A run that has not ended yet may be the beginning of a slope: no verdict before it is longer
    // than steps are.
    const std::size_t length = end - begin;
    if (length > 0 && length <= Forecaster::kStepPointsMax) {
      std::fill(changes.begin() + static_cast<std::ptrdiff_t>(begin),
                changes.begin() + static_cast<std::ptrdiff_t>(end), usual);
    }
    begin = end + 1;
  }
}

}  // namespace

std::string forecast_text(const Forecast& forecast) {
  if (!forecast.alert) return "";
  const auto text = [](std::string_view what, Duration in) {
    return fmt::format("{}-in={}s", what,
                       std::chrono::duration_cast<std::chrono::seconds>(in).count());
  };
  if (forecast.critical_in) return text("critical", *forecast.critical_in);
  if (forecast.emergency_in) return text("emergency", *forecast.emergency_in);
  return "";
}

void Forecaster::observe(Bytes available, TimePoint now) {
  if (!first_at_) {
    first_at_ = now;
    lowest_ = available;
  }
  const auto second = std::chrono::duration_cast<std::chrono::seconds>(now - *first_at_).count();
  const bool next = second != second_;
  if (next) {
    close_second();
    second_ = second;
    lowest_ = available;
  }
  lowest_ = std::min(lowest_, available);
  last_ = available;
  if (!next) return;
  const Forecast before = forecast_;
  forecast_ = predict();
  forecast_.alert = before.alert;
  forecast_.alerts = before.alerts;
  update_alert(now);
}

void Forecaster::close_second() {
  const Point point{static_cast<double>(second_), static_cast<double>(lowest_.count())};
  // What is older than the window does not count, also after a time without readings.
  const double oldest = point.seconds - static_cast<double>(kPointsMax) + 1;
  std::size_t drop = 0;
  while (drop < size_ && points_[drop].seconds < oldest) ++drop;
  std::move(points_.begin() + static_cast<std::ptrdiff_t>(drop),
            points_.begin() + static_cast<std::ptrdiff_t>(size_), points_.begin());
  size_ -= drop;
  points_[size_++] = point;
}

Forecaster::Trend Forecaster::trend(std::size_t points) const {
  const std::span<const Point> window(points_.data() + (size_ - points), points);
  std::array<double, kPointsMax> changes{};
  for (std::size_t i = 0; i + 1 < points; ++i) {
    changes[i] =
        (window[i + 1].bytes - window[i].bytes) / (window[i + 1].seconds - window[i].seconds);
  }
  take_out_steps(std::span(changes.data(), points - 1));
  std::array<double, kPointsMax> bytes{};  // Without steps; the last point is where it is.
  for (std::size_t i = points - 1; i > 0; --i) {
    bytes[i - 1] = bytes[i] - changes[i - 1] * (window[i].seconds - window[i - 1].seconds);
  }
  std::array<double, kPairsMax> slopes{};
  std::size_t pairs = 0;
  std::size_t falling = 0;
  std::size_t rising = 0;
  for (std::size_t i = 0; i < points; ++i) {
    for (std::size_t j = i + 1; j < points; ++j) {
      const double slope = (bytes[j] - bytes[i]) / (window[j].seconds - window[i].seconds);
      if (slope < -kFlatBytesPerSecond) ++falling;
      if (slope > kFlatBytesPerSecond) ++rising;
      slopes[pairs++] = slope;
    }
  }
  const double agree = static_cast<double>(falling) - static_cast<double>(rising);
  return {median(std::span(slopes.data(), pairs)),
          std::max(0.0, agree / static_cast<double>(pairs)),
          window.back().seconds - window.front().seconds};
}

/// Until `floor` is crossed. Live requests take what they are owed at their pace; where the trend
/// is steeper, their part is in it already. Empty: out of reach, or crossed.
std::optional<Duration> Forecaster::crossing(Bytes floor, const Trend* trend) const {
  if (last_ < floor) return std::nullopt;
  const double distance = static_cast<double>(saturating_sub(last_, floor).count());
  const double decline = trend == nullptr ? 0 : -trend->bytes_per_second;
  const double pace = std::max(decline, owed_.bytes_per_second);
  const double owed = static_cast<double>(owed_.left.count());
  if (pace <= 0) return std::nullopt;
  const double reach = trend == nullptr ? std::chrono::duration<double>(kAlertWithin).count()
                                        : kReach * trend->span_seconds;
  double seconds = distance / pace;
  if (pace > decline) {
    const double lasts = owed / pace;
    if (seconds > lasts) {
      if (decline <= 0) return std::nullopt;
      seconds = lasts + (distance - pace * lasts) / decline;
    }
  }
  if (seconds > reach) return std::nullopt;
  return duration_of(seconds);
}

Forecast Forecaster::predict() const {
  Forecast forecast;
  const auto sooner = [](std::optional<Duration>& known, const std::optional<Duration>& found) {
    if (!found || (known && *known <= *found)) return false;
    known = found;
    return true;
  };
  const auto consider = [&](const Trend* trend, double confidence) {
    const bool critical = sooner(forecast.critical_in, crossing(floors_.critical, trend));
    const bool emergency = sooner(forecast.emergency_in, crossing(floors_.emergency, trend));
    if (!critical && (forecast.critical_in || !emergency)) return;
    if (trend != nullptr) forecast.bytes_per_second = trend->bytes_per_second;
    forecast.confidence = confidence;
  };
  consider(nullptr, kConfidenceOwed);
  for (const std::size_t points : kWindowPoints) {
    if (size_ < points) break;
    const Trend found = trend(points);
    const double least = points == kPointsMax ? kConfidenceLeast : kConfidenceLeastShort;
    if (found.bytes_per_second < -kFlatBytesPerSecond && found.confidence >= least) {
      consider(&found, found.confidence);
    }
    if (forecast.critical_in || forecast.emergency_in) continue;
    forecast.bytes_per_second = found.bytes_per_second;
    forecast.confidence = found.confidence;
  }
  return forecast;
}

void Forecaster::update_alert(TimePoint now) {
  const std::optional<Duration>& next =
      forecast_.critical_in ? forecast_.critical_in : forecast_.emergency_in;
  if (!forecast_.alert) {
    calm_since_.reset();
    if (next && *next <= kAlertWithin) {
      forecast_.alert = true;
      ++forecast_.alerts;
    }
    return;
  }
  if (next && *next <= kAlertWithin * 3 / 2) {
    calm_since_.reset();
    return;
  }
  if (!calm_since_) calm_since_ = now;
  if (now - *calm_since_ >= kAlertHold) forecast_.alert = false;
}

}  // namespace pensieve::memory
