// One of several things that can limit our memory: the machine, the cgroups around us, a GPU.
#pragma once

#include <optional>

#include "base/error.h"
#include "memory/memory_source.h"

namespace pensieve::memory {

/// Thread-safety: calls come from one thread at a time.
class Meter {
 public:
  virtual ~Meter() = default;

  /// Empty: this meter sets no limit now, and we know that (e.g. `max` in every cgroup).
  /// Errors: we do not know. The caller must not go on as if there were no limit.
  virtual Result<std::optional<Reading>> read() = 0;
};

}  // namespace pensieve::memory
