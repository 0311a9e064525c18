#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "memory/signal_source.h"

namespace pensieve::memory {

/// Reports what the test last set, as often as asked. A new fake has no signal at all.
class FakeSignalSource final : public SignalSource {
 public:
  /// Stalls that have lasted long enough for the kernel's average to show them. Each call is one
  /// more second in which as much was waited.
  void stall(double some_percent, double full_percent, Scope scope = Scope::kOwn) {
    some_total_ += microseconds_of(some_percent);
    full_total_ += microseconds_of(full_percent);
    RawPressure raw;
    raw.pressure.some = {some_percent, some_percent, some_percent, some_total_};
    raw.pressure.full = {full_percent, full_percent, full_percent, full_total_};
    raw.scope = scope;
    raw.where = scope == Scope::kOwn ? "cgroup /own" : "machine";
    next_.pressure = std::move(raw);
  }
  void swapped_in(std::uint64_t pages, Scope scope = Scope::kOwn) {
    pages_ += pages;
    next_.swap_in = RawSwapIn{pages_, scope, scope == Scope::kOwn ? "cgroup /own" : "machine"};
  }
  void set_events(RawEvents events) { next_.events = std::move(events); }
  void set_verdict(KernelVerdict verdict) { next_.verdict = verdict; }

  void fail_pressure() { next_.pressure = unreadable(); }
  void fail_swap_in() { next_.swap_in = unreadable(); }
  void fail_events() { next_.events = unreadable(); }

  /// How often read() was called.
  std::uint64_t reads() const { return reads_; }
  const RawSignals& now() const { return next_; }

  RawSignals read() override {
    ++reads_;
    return next_;
  }

 private:
  static std::chrono::microseconds microseconds_of(double percent) {
    return std::chrono::microseconds(static_cast<std::int64_t>(percent * 10'000));
  }
  static std::unexpected<Error> unreadable() {
    return fail(Code::kUnavailable, "injected: signal unreadable");
  }

  RawSignals next_;
  std::chrono::microseconds some_total_{0};
  std::chrono::microseconds full_total_{0};
  std::uint64_t pages_ = 0;
  std::uint64_t reads_ = 0;
};

}  // namespace pensieve::memory
