// How much memory a process has resident, for the heartbeat and for reports.
#pragma once

#include "base/bytes.h"
#include "base/error.h"

namespace pensieve::worker {

struct ProcessMemory {
  Bytes resident;   // All pages, file-backed ones included.
  Bytes anonymous;  // Pages that no file backs.
};

/// Of this process. Linux: /proc/self/status (VmRSS, RssAnon, RssShmem). macOS: phys_footprint as
/// both (compiled, untested).
/// Errors: kUnavailable where the figures cannot be read.
Result<ProcessMemory> own_process_memory();

}  // namespace pensieve::worker
