// The signals of macOS: what the kernel itself says, and its swap-ins. Untested: no machine of this
// kind was at hand; it compiles on Apple platforms only.
#pragma once

#if defined(__APPLE__)

#include <atomic>
#include <cstdint>

#include <dispatch/dispatch.h>

#include "memory/signal_source.h"

namespace pensieve::memory {

/// Listens to the kernel's memory-pressure events (a dispatch source), which come when the verdict
/// changes; the verdict from before the first event is read from
/// kern.memorystatus_vm_pressure_level. There are neither PSI nor groups: both are known absences.
class MacosSignals final : public SignalSource {
 public:
  MacosSignals();
  ~MacosSignals() override;
  MacosSignals(const MacosSignals&) = delete;
  MacosSignals& operator=(const MacosSignals&) = delete;

  RawSignals read() override;

 private:
  static void on_event(void* self);

  dispatch_queue_t queue_ = nullptr;
  dispatch_source_t source_ = nullptr;
  std::atomic<unsigned long> event_ = 0;  // The last DISPATCH_MEMORYPRESSURE_*; 0: none yet.
};

}  // namespace pensieve::memory

#endif
