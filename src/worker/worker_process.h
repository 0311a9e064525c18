// Starting a worker program with one end of a socketpair, and learning how it ended.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "worker/oom_kill_counter.h"
#include "worker/worker_end.h"
#include "worker/worker_groups.h"

namespace pensieve::worker {

/// The descriptor at which a worker finds its socket.
inline constexpr int kWorkerSocketFd = 3;

/// A child process with a socket to it. Its destructor kills and reaps a child that still lives, so
/// that no worker outlives the object.
///
/// Ownership: move-only. Thread-safety: one thread.
class WorkerProcess {
 public:
  /// Runs `program` with `args`; the child gets its own process group (a terminal's Ctrl+C is the
  /// gateway's to handle), its socket as descriptor 3 and nothing else but stdio.
  /// Errors: kNotFound where the program cannot be started; kInternal for descriptors.
  static Result<WorkerProcess> spawn(const std::string& program,
                                     const std::vector<std::string>& args);

  /// Moves the process into a memory group of its own, which it keeps until it is reaped. Meant for
  /// right after spawn(): a worker takes no memory to speak of before its first frame.
  /// Errors: kUnavailable, and the process has no group.
  Result<void> confine(std::unique_ptr<WorkerGroup> group);
  /// Null where it has none.
  WorkerGroup* group() const { return group_.get(); }

  WorkerProcess(WorkerProcess&& other) noexcept;
  WorkerProcess& operator=(WorkerProcess&& other) noexcept;
  ~WorkerProcess();

  pid_t pid() const { return pid_; }

  /// Our end of the socketpair; the caller owns it from now on.
  int release_socket();

  /// SIGKILL to it and to what it has started, with the reason. The first reason counts.
  void kill(WorkerEnd verdict);

  /// It has ended, whether or not its verdict was taken. Does not block.
  bool has_ended() const;
  /// SIGKILL to what it has started and left behind.
  void kill_what_it_started() const;

  /// A stop was asked for over the socket; exit code 0 is a clean end from now on.
  void expect_stop() { stop_requested_ = true; }

  struct End {
    WorkerEnd end;
    int wait_status;
  };
  /// The verdict, once the process is gone; empty while it lives. What it has started goes with it.
  /// Does not block.
  std::optional<End> try_reap();

 private:
  WorkerProcess() = default;
  bool killed_by_kernel() const;

  pid_t pid_ = -1;  // -1 once reaped or moved from.
  int socket_ = -1;
  bool stop_requested_ = false;
  std::optional<WorkerEnd> our_verdict_;
  std::unique_ptr<WorkerGroup> group_;
  OomKillCounter oom_kills_;  // Of the gateway's group, for a process without one of its own.
  std::optional<std::uint64_t> oom_kills_at_start_;
};

}  // namespace pensieve::worker
