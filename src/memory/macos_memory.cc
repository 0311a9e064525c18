#include "memory/macos_memory.h"

#if defined(__APPLE__)

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <system_error>

#include <fmt/core.h>
#include <mach/mach.h>
#include <sys/sysctl.h>

#include "base/bytes.h"

namespace pensieve::memory {
namespace {

Result<Bytes> total_memory() {
  std::uint64_t bytes = 0;
  std::size_t size = sizeof(bytes);
  if (::sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) != 0 || size != sizeof(bytes)) {
    return fail(Code::kUnavailable, fmt::format("sysctl hw.memsize failed: {}",
                                                std::generic_category().message(errno)));
  }
  return Bytes(bytes);
}

}  // namespace

Result<std::optional<Reading>> MacosMemory::read() {
  const Result<Bytes> total = total_memory();
  if (!total) return std::unexpected(total.error());

  const mach_port_t host = ::mach_host_self();
  vm_size_t page_size = 0;
  vm_statistics64_data_t pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  kern_return_t result = ::host_page_size(host, &page_size);
  if (result == KERN_SUCCESS) {
    result =
        ::host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count);
  }
  ::mach_port_deallocate(::mach_task_self(), host);  // Each mach_host_self() is a reference.
  if (result != KERN_SUCCESS) {
    return fail(Code::kUnavailable, fmt::format("host_statistics64 failed with {}", result));
  }
  // free_count counts the speculative pages (read ahead from files), and so does the count of
  // file-backed ("external") pages: once is enough. 32-bit counts of pages cannot overflow here.
  const std::uint64_t free_pages =
      pages.free_count - std::min(pages.free_count, pages.speculative_count);
  const std::uint64_t available_pages =
      free_pages + pages.external_page_count + pages.purgeable_count;
  // The counters are not read at one instant, so that their sum may be slightly too large.
  const Bytes available = std::min(Bytes(available_pages * page_size), *total);
  return Reading{available, *total, std::string(kMachineMeter)};
}

}  // namespace pensieve::memory

#endif
