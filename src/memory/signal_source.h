// Where the signals beside the available figure come from; memory/signals.h says what they mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "memory/psi.h"

namespace pensieve::memory {

/// Whose pressure a signal shows.
enum class Scope : std::uint8_t {
  kOwn,      // That of our own group: our tasks, nobody else's.
  kMachine,  // Everybody's; maybe that of another container alone.
};

struct RawPressure {
  Pressure pressure;
  Scope scope = Scope::kOwn;
  std::string where;  // "cgroup /a", "machine".
};

struct RawSwapIn {
  std::uint64_t pages = 0;  // Since boot, or since the group was made.
  Scope scope = Scope::kOwn;
  std::string where;
};

/// Counts since the group was made; those that a kernel does not have stay zero.
struct RawEvents {
  std::uint64_t low = 0;             // v2: memory.low was breached.
  std::uint64_t high = 0;            // v2: slowed down above memory.high.
  std::uint64_t max = 0;             // v2; v1: memory.failcnt.
  std::uint64_t oom = 0;             // v2: reclaim found nothing.
  std::uint64_t oom_kill = 0;        // Both.
  bool waits_out_of_memory = false;  // v1: under_oom; all tasks stand still.
  std::string where;
};

/// What macOS itself says of its memory.
enum class KernelVerdict : std::uint8_t { kNormal, kWarning, kCritical };

/// Each part by itself: empty where this machine has no such signal, and we know that; an error
/// where it has one that could not be read, which must not pass for "no pressure".
struct RawSignals {
  Result<std::optional<RawPressure>> pressure;
  Result<std::optional<RawSwapIn>> swap_in;
  Result<std::optional<RawEvents>> events;
  Result<std::optional<KernelVerdict>> verdict;
};

/// Thread-safety: calls come from one thread at a time.
class SignalSource {
 public:
  virtual ~SignalSource() = default;

  /// Takes well under 200 µs.
  virtual RawSignals read() = 0;
};

}  // namespace pensieve::memory
