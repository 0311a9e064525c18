// The memory of this machine as one source: the smallest of all its meters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "memory/memory_source.h"
#include "memory/meter.h"

namespace pensieve::memory {

/// Reports the meter with the least available. If any meter fails, the reading fails: a limit
/// that could not be read is not a limit that is not there. If no meter sets a limit, it fails
/// as well, for no machine is without one.
class SmallestOf final : public MemorySource {
 public:
  explicit SmallestOf(std::vector<std::unique_ptr<Meter>> meters) : meters_(std::move(meters)) {}

  Result<Reading> read() override;

 private:
  std::vector<std::unique_ptr<Meter>> meters_;
};

/// All meters of this platform. Linux: /proc/meminfo and the cgroups around this process; macOS:
/// the VM statistics. `own_group` names a memory group of this process alone that is left out
/// (CgroupMemory::open). Errors: where a meter is there and cannot be used, with what to do.
Result<std::unique_ptr<MemorySource>> open_machine_memory(const std::string& own_group = "");

}  // namespace pensieve::memory
