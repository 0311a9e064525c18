// What the memory guard costs a request: one admission check, with and without a reading of its
// own; and what it costs beside requests: the signals, and a second of the forecast. Prints one
// line per case, tab separated: name, calls, and p50, p99 and max in µs.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <string_view>
#include <variant>
#include <vector>

#include <fmt/core.h>
#include <algorithm>

#include "base/clock.h"
#include "memory/admission.h"
#include "memory/forecast.h"
#include "memory/machine_memory.h"
#include "memory/machine_signals.h"
#include "memory/monitor.h"

namespace pensieve::memory {
namespace {

constexpr std::size_t kCheckCalls = 500'000;
constexpr std::size_t kReadingCalls = 20'000;
constexpr std::size_t kSignalCalls = 5'000;
// About every few milliseconds: the gateway's monitor reads every 250 ms, and a reading older than
// 3 s would count as unknown.
constexpr std::size_t kCallsPerSample = 10'000;
constexpr std::size_t kReadingsPerSample = 1'000;

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

double percentile(const std::vector<double>& sorted, double share) {
  const auto index = static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1));
  return sorted[index];
}

/// Times each call on its own; two looks at the clock (about 0.05 µs) are part of each figure.
/// `call` returns false when it did not do what is measured: no figure is better than a wrong one.
bool measure(std::string_view name, std::size_t calls, const std::function<bool()>& call) {
  const Clock& clock = steady_clock();
  std::vector<double> took;
  took.reserve(calls);
  for (std::size_t i = 0; i < calls; ++i) {
    const TimePoint began = clock.now();
    const bool worked = call();
    took.push_back(microseconds(clock.now() - began));
    if (!worked) {
      fmt::print(stderr, "{}: call {} failed\n", name, i);
      return false;
    }
  }
  std::sort(took.begin(), took.end());
  fmt::print("{}\t{}\t{:.3f}\t{:.3f}\t{:.3f}\n", name, calls, percentile(took, 0.5),
             percentile(took, 0.99), took.back());
  return true;
}

bool measure_with_reading(MemorySource& machine) {
  const std::unique_ptr<SignalSource> signals = open_machine_signals();
  Monitor::Options with_reading;
  with_reading.fresh_for = Duration::zero();
  Monitor monitor(machine, signals.get(), steady_clock(), with_reading);
  monitor.sample();
  std::size_t calls = 0;
  return measure("admission check with a reading", kReadingCalls, [&] {
    if (++calls % kReadingsPerSample == 0) monitor.sample();
    const Monitor::Status status = monitor.check();
    const Admission admission = decide(status);
    return status.available.has_value() && admission.index() != std::variant_npos;
  });
}

/// Both happen on the timer, never while a request waits.
bool measure_beside_requests() {
  const std::unique_ptr<SignalSource> signals = open_machine_signals();
  bool all = measure("signals", kSignalCalls, [&] {
    const RawSignals raw = signals->read();
    return raw.pressure.has_value() && raw.swap_in.has_value() && raw.events.has_value();
  });
  Forecaster forecaster{Floors()};
  TimePoint now{};
  std::uint64_t second = 0;
  const auto observe = [&] {
    now += std::chrono::seconds(1);
    forecaster.observe(Bytes((8192 - ++second % 4096) << 20), now);
    return true;
  };
  all = measure("forecast, once a second", kSignalCalls, observe) && all;
  return all;
}

int run() {
  const Result<std::unique_ptr<MemorySource>> source = open_machine_memory();
  if (!source) {
    fmt::print(stderr, "{}\n", source.error().message);
    return 1;
  }
  MemorySource& machine = **source;

  Monitor::Options without_reading;
  without_reading.fresh_for = std::chrono::hours(1);
  Monitor monitor(machine, steady_clock(), without_reading);
  monitor.sample();
  bool all = true;
  // What every request of a burst costs but the first.
  std::size_t calls = 0;
  const auto check = [&] {
    if (++calls % kCallsPerSample == 0) monitor.sample();
    const Monitor::Status status = monitor.check();
    const Admission admission = decide(status);
    return status.available.has_value() && admission.index() != std::variant_npos;
  };
  all = measure("admission check", kCheckCalls, check) && all;

  all = measure("fresh reading", kReadingCalls, [&] { return machine.read().has_value(); }) && all;

  all = measure_with_reading(machine) && all;
  return measure_beside_requests() && all ? 0 : 1;
}

}  // namespace
}  // namespace pensieve::memory

int main() {
  return pensieve::memory::run();
}
