// How a worker ended: one verdict per worker, the first one counts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pensieve::worker {

enum class WorkerEnd : std::uint8_t {
  kClean,            // It was told to stop and did.
  kCrashed,          // Abort, segmentation fault, unexpected exit code.
  kOutOfMemory,      // Its own allocation failed (std::bad_alloc); exit code kExitOutOfMemory.
  kKilledByKernel,   // The kernel's out-of-memory killer chose it.
  kKilledForMemory,  // We killed it, to free memory.
  kKilled,           // SIGKILL from somebody else.
  kDeadline,         // We killed it: no sign of progress for too long.
  kProtocolError,    // We killed it: it sent something that is no frame.
};

/// For logs, /metrics and tests: "clean", "crashed", "out_of_memory", "killed_by_kernel", ...
std::string_view name(WorkerEnd end);

/// The worker's own exit codes besides 0. Choice: outside sysexits.h and shell conventions.
inline constexpr int kExitOutOfMemory = 91;
inline constexpr int kExitEngineFailure = 92;
inline constexpr int kExitBadUsage = 93;

struct EndFacts {
  int wait_status = 0;                    // From waitpid().
  bool stop_requested = false;            // kShutdown was sent.
  bool kernel_killed_for_memory = false;  // The out-of-memory killer's counter has moved.
  std::optional<WorkerEnd> our_verdict;   // Why we sent SIGKILL, where we did.
};

WorkerEnd classify(const EndFacts& facts);

/// E.g. "killed_by_kernel (signal 9, Killed)".
std::string describe(WorkerEnd end, int wait_status);

}  // namespace pensieve::worker
