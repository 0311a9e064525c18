#include "worker/process_memory.h"

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#if defined(__APPLE__)
#include <mach/mach.h>
#endif

namespace pensieve::worker {

#if defined(__APPLE__)

Result<ProcessMemory> own_process_memory() {
  task_vm_info_data_t info{};
  mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
  if (task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count) !=
      KERN_SUCCESS) {
    return fail(Code::kUnavailable, "task_info(TASK_VM_INFO) failed");
  }
  const Bytes footprint(info.phys_footprint);
  return ProcessMemory{footprint, footprint};
}

#else

Result<ProcessMemory> own_process_memory() {
  std::ifstream file("/proc/self/status");
  std::optional<std::uint64_t> resident;
  std::optional<std::uint64_t> anonymous;
  std::uint64_t shared_memory = 0;
  std::string line;
  while (std::getline(file, line)) {
    const auto kib_after = [&](const std::string& key) -> std::optional<std::uint64_t> {
      if (!line.starts_with(key)) return std::nullopt;
      return std::stoull(line.substr(key.size()));  // The kernel writes "key:  number kB".
    };
    if (const auto kib = kib_after("VmRSS:")) resident = *kib;
    if (const auto kib = kib_after("RssAnon:")) anonymous = *kib;
    if (const auto kib = kib_after("RssShmem:")) shared_memory = *kib;
  }
  if (!resident || !anonymous) {
    return fail(Code::kUnavailable, "/proc/self/status has no VmRSS and RssAnon");
  }
  return ProcessMemory{Bytes(*resident << 10), Bytes((*anonymous + shared_memory) << 10)};
}

#endif

}  // namespace pensieve::worker
