// What happened in a simulation, in order: all of it as one hash, the last of it in words.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include <fmt/core.h>

#include "base/clock.h"

namespace pensieve::sim {

/// Two runs with the same hash did the same things at the same times.
class Trace {
 public:
  static constexpr std::size_t kKeptMax = 60;

  explicit Trace(const Clock& clock) : clock_(clock) {}

  /// `what` has to live for ever: a literal. `a` and `b` are whose and how much.
  void add(std::string_view what, std::uint64_t a = 0, std::uint64_t b = 0) {
    const auto at = static_cast<std::uint64_t>(clock_.now().time_since_epoch().count());
    for (const char letter : what) mix(static_cast<unsigned char>(letter));
    mix(at);
    mix(a);
    mix(b);
    kept_.push_back({at, what, a, b});
    if (kept_.size() > kKeptMax) kept_.pop_front();
  }

  std::uint64_t hash() const { return hash_; }

  /// The last events, one a line, oldest first.
  std::string last() const {
    std::string text;
    for (const Event& event : kept_) {
      text += fmt::format("  {:10.3f} s  {} {} {}\n", static_cast<double>(event.at) / 1e9,
                          event.what, event.a, event.b);
    }
    return text;
  }

 private:
  struct Event {
    std::uint64_t at;  // Nanoseconds.
    std::string_view what;
    std::uint64_t a;
    std::uint64_t b;
  };

  /// FNV-1a, a word at a time.
  void mix(std::uint64_t word) { hash_ = (hash_ ^ word) * 1099511628211U; }

  const Clock& clock_;
  std::uint64_t hash_ = 14695981039346656037U;
  std::deque<Event> kept_;
};

}  // namespace pensieve::sim
