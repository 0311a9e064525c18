#include "memory/macos_signals.h"

#if defined(__APPLE__)

#include <cerrno>
#include <system_error>

#include <fmt/core.h>
#include <mach/mach.h>
#include <sys/sysctl.h>

namespace pensieve::memory {
namespace {

Result<std::optional<KernelVerdict>> verdict_of(unsigned long level) {
  // NOTE_MEMORYSTATUS_PRESSURE_* and DISPATCH_MEMORYPRESSURE_* have the same values.
  switch (level) {
    case DISPATCH_MEMORYPRESSURE_NORMAL:
      return KernelVerdict::kNormal;
    case DISPATCH_MEMORYPRESSURE_WARN:
      return KernelVerdict::kWarning;
    case DISPATCH_MEMORYPRESSURE_CRITICAL:
      return KernelVerdict::kCritical;
    default:
      return fail(Code::kUnavailable, fmt::format("unknown memory pressure level {}", level));
  }
}

Result<std::optional<KernelVerdict>> verdict_by_sysctl() {
  int level = 0;
  std::size_t size = sizeof(level);
  if (::sysctlbyname("kern.memorystatus_vm_pressure_level", &level, &size, nullptr, 0) == 0 &&
      size == sizeof(level) && level >= 0) {
    return verdict_of(static_cast<unsigned long>(level));
  }
  if (errno == ENOENT) return std::nullopt;
  return fail(Code::kUnavailable, fmt::format("sysctl kern.memorystatus_vm_pressure_level: {}",
                                              std::generic_category().message(errno)));
}

Result<std::optional<RawSwapIn>> swap_in() {
  const mach_port_t host = ::mach_host_self();
  vm_statistics64_data_t pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  const kern_return_t result =
      ::host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count);
  ::mach_port_deallocate(::mach_task_self(), host);  // Each mach_host_self() is a reference.
  if (result != KERN_SUCCESS) {
    return fail(Code::kUnavailable, fmt::format("host_statistics64 failed with {}", result));
  }
  // From disk. What only comes back from the compressor is the kernel's everyday work.
  return RawSwapIn{pages.swapins, Scope::kMachine, "machine"};
}

}  // namespace

MacosSignals::MacosSignals() {
  queue_ = ::dispatch_queue_create("pensieve.memory-pressure", DISPATCH_QUEUE_SERIAL);
  source_ = ::dispatch_source_create(DISPATCH_SOURCE_TYPE_MEMORYPRESSURE, 0,
                                     DISPATCH_MEMORYPRESSURE_NORMAL | DISPATCH_MEMORYPRESSURE_WARN |
                                         DISPATCH_MEMORYPRESSURE_CRITICAL,
                                     queue_);
  if (source_ == nullptr) return;  // read() asks the sysctl each time then.
  ::dispatch_set_context(source_, this);
  ::dispatch_source_set_event_handler_f(source_, &MacosSignals::on_event);
  ::dispatch_activate(source_);
}

MacosSignals::~MacosSignals() {
  if (source_ != nullptr) {
    ::dispatch_source_cancel(source_);
    // The queue is serial: once this empty task has run, no handler can touch us any more.
    ::dispatch_sync_f(queue_, nullptr, [](void*) {});
    ::dispatch_release(source_);
  }
  ::dispatch_release(queue_);
}

void MacosSignals::on_event(void* self) {
  auto& signals = *static_cast<MacosSignals*>(self);
  signals.event_.store(::dispatch_source_get_data(signals.source_), std::memory_order_relaxed);
}

RawSignals MacosSignals::read() {
  RawSignals signals;
  const unsigned long event = event_.load(std::memory_order_relaxed);
  signals.verdict = event == 0 ? verdict_by_sysctl() : verdict_of(event);
  signals.swap_in = swap_in();
  return signals;
}

}  // namespace pensieve::memory

#endif
