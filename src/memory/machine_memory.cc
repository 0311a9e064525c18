#include "memory/machine_memory.h"

#include <optional>
#include <utility>

#if defined(__APPLE__)
#include "memory/macos_memory.h"
#else
#include "memory/cgroup.h"
#include "memory/proc_meminfo.h"
#endif

namespace pensieve::memory {

Result<Reading> SmallestOf::read() {
  std::optional<Reading> smallest;
  for (const std::unique_ptr<Meter>& meter : meters_) {
    Result<std::optional<Reading>> reading = meter->read();
    if (!reading) return std::unexpected(std::move(reading.error()));
    if (!*reading || (smallest && (*reading)->available >= smallest->available)) continue;
    smallest = std::move(**reading);
  }
  if (!smallest) return fail(Code::kUnavailable, "no meter says how much memory there is");
  return std::move(*smallest);
}

Result<std::unique_ptr<MemorySource>> open_machine_memory(
    [[maybe_unused]] const std::string& own_group) {
  std::vector<std::unique_ptr<Meter>> meters;
#if defined(__APPLE__)
  meters.push_back(std::make_unique<MacosMemory>());
#else
  Result<std::unique_ptr<ProcMeminfo>> machine = ProcMeminfo::open();
  if (!machine) return std::unexpected(std::move(machine.error()));
  meters.push_back(std::move(*machine));
  Result<std::unique_ptr<CgroupMemory>> cgroups = CgroupMemory::open({}, own_group);
  if (!cgroups) return std::unexpected(std::move(cgroups.error()));
  meters.push_back(std::move(*cgroups));
#endif
  auto source = std::make_unique<SmallestOf>(std::move(meters));
  // A figure that cannot be read at all is better said at start than by refusing everybody.
  if (const Result<Reading> first = source->read(); !first) return std::unexpected(first.error());
  return source;
}

}  // namespace pensieve::memory
