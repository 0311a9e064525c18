#include "worker/worker_end.h"

#include <sys/wait.h>

#include <csignal>
#include <cstring>

#include <fmt/core.h>

namespace pensieve::worker {

std::string_view name(WorkerEnd end) {
  switch (end) {
    case WorkerEnd::kClean:
      return "clean";
    case WorkerEnd::kCrashed:
      return "crashed";
    case WorkerEnd::kOutOfMemory:
      return "out_of_memory";
    case WorkerEnd::kKilledByKernel:
      return "killed_by_kernel";
    case WorkerEnd::kKilledForMemory:
      return "killed_for_memory";
    case WorkerEnd::kKilled:
      return "killed";
    case WorkerEnd::kDeadline:
      return "deadline";
    case WorkerEnd::kProtocolError:
      return "protocol_error";
  }
  return "crashed";
}

WorkerEnd classify(const EndFacts& facts) {
  // Ours first: a worker that we kill for hanging may be shot by the kernel in the same moment.
  if (facts.our_verdict) return *facts.our_verdict;
  if (WIFEXITED(facts.wait_status)) {
    const int code = WEXITSTATUS(facts.wait_status);
    if (code == kExitOutOfMemory) return WorkerEnd::kOutOfMemory;
    return code == 0 && facts.stop_requested ? WorkerEnd::kClean : WorkerEnd::kCrashed;
  }
  if (WIFSIGNALED(facts.wait_status) && WTERMSIG(facts.wait_status) == SIGKILL) {
    return facts.kernel_killed_for_memory ? WorkerEnd::kKilledByKernel : WorkerEnd::kKilled;
  }
  return WorkerEnd::kCrashed;
}

std::string describe(WorkerEnd end, int wait_status) {
  if (WIFEXITED(wait_status)) {
    return fmt::format("{} (exit code {})", name(end), WEXITSTATUS(wait_status));
  }
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return fmt::format("{} (signal {}, {})", name(end), signal, ::strsignal(signal));
  }
  return std::string(name(end));
}

}  // namespace pensieve::worker
