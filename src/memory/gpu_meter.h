// The memory of one GPU as a meter: what a backend with a GPU has to implement, and what it means.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/meter.h"

namespace pensieve::memory {

/// One device. Several devices are several meters: memory of one cannot be used for another.
///
/// It is a meter like others: SmallestOf takes the least available of all, so a full GPU makes the
/// level worse whatever the machine has left. A driver that stops answering is an error, hence
/// unknown, hence Critical: it may well be out of memory.
///
/// Thread-safety: calls come from one thread at a time.
class GpuMeter : public Meter {
 public:
  struct DeviceMemory {
    Bytes free;  // Of the device, whoever uses the rest. At most `total`.
    Bytes total;
  };

  /// As the reading says it: "gpu 0 (Radeon 780M)".
  virtual std::string device() const = 0;

  /// Empty where the device has no memory of its own (an integrated one, Apple's): the machine's
  /// meter counts that memory already, and counting it twice would halve nothing but trust.
  /// Takes well under 1 ms: it stands in the way of each fresh reading.
  /// Errors: kUnavailable where the driver does not answer. Never the last good figure.
  virtual Result<std::optional<DeviceMemory>> device_memory() = 0;

  Result<std::optional<Reading>> read() final {
    const Result<std::optional<DeviceMemory>> memory = device_memory();
    if (!memory) {
      return fail(memory.error().code, device() + ": " + memory.error().message);
    }
    if (!*memory) return std::nullopt;
    const DeviceMemory& now = **memory;
    if (now.total == Bytes() || now.free > now.total) {
      return fail(Code::kUnavailable, device() + " says that more is free than there is");
    }
    return Reading{now.free, now.total, device()};
  }
};

}  // namespace pensieve::memory
