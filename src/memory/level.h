// How short of memory we are, as one of five levels, and when that judgement may change.
//
// Pure values: no clock, no I/O, no locks. memory/monitor.h feeds it, memory/admission.h obeys it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"

namespace pensieve::memory {

/// Ordered: a later level is always the worse one, so `a > b` reads "a is worse than b".
enum class Level : std::uint8_t { kSafe, kCaution, kWarning, kCritical, kEmergency };

/// As people and the `x-memory-status` header see it.
constexpr std::string_view name(Level level) {
  switch (level) {
    case Level::kSafe:
      return "Safe";
    case Level::kCaution:
      return "Caution";
    case Level::kWarning:
      return "Warning";
    case Level::kCritical:
      return "Critical";
    case Level::kEmergency:
      return "Emergency";
  }
  return "Emergency";  // Not reached; the worst name if it were.
}

/// What an unreadable or outdated figure counts as. Not knowing is treated as nearly the worst
/// we can know: the gateway refuses new work, but running requests go on.
inline constexpr Level kLevelWhenUnknown = Level::kCritical;

/// Floors of available memory. At exactly a floor we are still on its good side.
struct Floors {
  Bytes caution = 3_GiB;
  Bytes warning = 2_GiB;
  Bytes critical = 1_GiB;
  Bytes emergency = 512_MiB;

  constexpr bool ordered() const {
    return caution > warning && warning > critical && critical > emergency;
  }
};
static_assert(Floors().ordered());

constexpr Level level_for(Bytes available, const Floors& floors) {
  if (available < floors.emergency) return Level::kEmergency;
  if (available < floors.critical) return Level::kCritical;
  if (available < floors.warning) return Level::kWarning;
  if (available < floors.caution) return Level::kCaution;
  return Level::kSafe;
}

/// Follows measured levels, quick to worsen and slow to recover.
///
/// A worse measurement counts at once. A better one counts once all measurements of the last
/// `recovery_hold` were at least that good. Without the hold, a model that is unloaded and loaded
/// again around a floor would flap admission on and off. Each level has a hold of its own, so that
/// relief which comes in two steps, as the end of a large process does, costs one hold and not two.
/// The first measurement counts at once, whatever it is: there is no level to recover from.
class LevelTracker {
 public:
  constexpr explicit LevelTracker(Duration recovery_hold) : recovery_hold_(recovery_hold) {}

  constexpr Level level() const { return level_; }

  /// REQUIRES: `now` is not before the `now` of the previous call.
  constexpr void observe(Level measured, TimePoint now) {
    for (std::size_t better = 0; better < kLevels; ++better) {
      std::optional<TimePoint>& since = good_since_[better];
      if (measured > static_cast<Level>(better)) {
        since.reset();
      } else if (!since) {
        since = now;
      }
    }
    if (measured >= level_) {
      level_ = measured;
      return;
    }
    for (Level better = measured; better < level_; better = next_worse(better)) {
      if (now - *good_since_[static_cast<std::size_t>(better)] < recovery_hold_) continue;
      level_ = better;
      return;
    }
  }

  /// A measurement failed. The hold starts anew: time in which we did not look proves nothing.
  constexpr void observe_unknown() { good_since_ = {}; }

 private:
  static constexpr std::size_t kLevels = 5;
  static constexpr Level next_worse(Level level) {
    return static_cast<Level>(static_cast<std::uint8_t>(level) + 1);
  }

  Duration recovery_hold_;
  Level level_ = Level::kSafe;
  /// For each level: since when no measurement was worse. Empty where the last one was.
  std::array<std::optional<TimePoint>, kLevels> good_since_{};
};

}  // namespace pensieve::memory
