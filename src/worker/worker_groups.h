// A memory cgroup for each worker, below the group that the gateway was started in (Linux).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/cgroup_place.h"
#include "worker/group_files.h"

namespace pensieve::worker {

/// What a worker may have for which `reserved` is reserved: an eighth more, but at least
/// kMarginLeast and at most kMarginMost more. A reservation includes mapped weights, whose pages
/// are charged to the group of whoever touches them first, so they always fit and stay. The margin
/// is for what an estimate leaves out (allocator slack, page tables, socket buffers): the limit is
/// there to stop a leak before the machine feels it, not to punish an estimate that is 5 % short.
/// Where nothing is reserved yet: kPlanningLimit, for reading a model file's header.
Bytes limit_for(Bytes reserved);

// Choices. A header with a vocabulary of 250,000 words takes some 100 MiB.
inline constexpr Bytes kMarginLeast = 128_MiB;
inline constexpr Bytes kMarginMost = 2_GiB;
inline constexpr Bytes kPlanningLimit = 512_MiB;
/// How much file cache one lowering of a limit may have to drop: the kernel does that in the
/// caller's thread, and 64 MiB take it some 10 ms.
inline constexpr Bytes kReclaimStepMax = 64_MiB;

/// The memory group of one worker. Its destructor removes the group, which works once the process
/// is reaped; what is still in use then is left to the sweep of WorkerGroups.
///
/// Thread-safety: one thread at a time.
class WorkerGroup {
 public:
  ~WorkerGroup();
  WorkerGroup(const WorkerGroup&) = delete;
  WorkerGroup& operator=(const WorkerGroup&) = delete;

  /// As /proc/self/cgroup shows it to a process in the group.
  const std::string& name() const { return name_; }
  /// Where it stands in the file system.
  const std::string& folder() const { return folder_; }
  memory::CgroupVersion version() const { return version_; }
  Bytes limit() const { return limit_; }

  /// Moves the process in, and confirms that it is. What it has taken so far stays charged to
  /// where it was. Errors: kUnavailable, and the process is where it was.
  Result<void> admit(pid_t pid);

  /// Makes limit_for(reserved) the limit. Raised at once. Lowered as far as neither what the
  /// worker holds and needs is touched (the kernel would kill it) nor more than kReclaimStepMax of
  /// file cache has to be dropped; a later call goes on from there, so call it as often as the
  /// reservation is looked at. Costs nothing where the limit is right already.
  /// Errors: kUnavailable where the kernel refuses, or the worker needs more than the new limit;
  /// the old limit holds on.
  Result<void> set_reserved(Bytes reserved);

  /// Kills of the kernel's out-of-memory killer in this group so far, whatever the limit was that
  /// was reached: this group's, an enclosing one's or the machine's. Empty where it cannot be read.
  std::optional<std::uint64_t> oom_kills() const;

 private:
  friend class WorkerGroups;
  using Folders = std::set<std::string>;
  WorkerGroup(std::shared_ptr<GroupFiles> files, std::shared_ptr<Folders> in_use,
              memory::CgroupVersion version, std::string name, std::string folder)
      : files_(std::move(files)),
        in_use_(std::move(in_use)),
        version_(version),
        name_(std::move(name)),
        folder_(std::move(folder)) {
    in_use_->insert(folder_);
  }

  struct Use {
    Bytes all;
    Bytes needed;  // Without the file cache.
  };
  Result<void> prepare();
  Result<Use> use() const;
  Result<void> write_limit(Bytes limit);
  Result<void> write(std::string_view file, std::string_view text);
  /// The same, but a file that this kernel does not have is no error.
  Result<void> write_if_there(std::string_view file, std::string_view text);

  const std::shared_ptr<GroupFiles> files_;
  const std::shared_ptr<Folders> in_use_;
  const memory::CgroupVersion version_;
  const std::string name_;
  const std::string folder_;
  Bytes limit_;
};

/// Makes groups for workers where this machine lets us: v1 with the right to make groups (root),
/// v2 in a delegated group. There the kernel wants processes in leaves only, so the gateway moves
/// itself into a leaf beside its workers and gives the memory controller to both.
///
/// Ownership: groups may outlive it. Thread-safety: one thread at a time.
class WorkerGroups {
 public:
  /// What belongs to the process that asks; tests play another one.
  struct Self {
    pid_t pid = 0;
    std::function<bool(pid_t)> is_running;
  };

  /// Also removes the groups that dead gateways have left below the same group: ours by name, whose
  /// process is gone, and empty. Errors: why workers cannot have groups here, and nothing has
  /// changed then.
  static Result<std::unique_ptr<WorkerGroups>> open(std::shared_ptr<GroupFiles> files,
                                                    const memory::CgroupPlace& place, Self self);
  /// For this process, with the kernel's files.
  static Result<std::unique_ptr<WorkerGroups>> open();

  /// v2: moves the gateway back to where it was, as far as that is possible.
  ~WorkerGroups();
  WorkerGroups(const WorkerGroups&) = delete;
  WorkerGroups& operator=(const WorkerGroups&) = delete;

  /// A group with the limit kPlanningLimit and nobody in it. Errors: kUnavailable.
  Result<std::unique_ptr<WorkerGroup>> make();

  /// E.g. "cgroup v1, below /user/x".
  std::string describe() const;

 private:
  WorkerGroups(std::shared_ptr<GroupFiles> files, memory::CgroupVersion version,
               memory::CgroupFolder parent, Self self)
      : files_(std::move(files)),
        version_(version),
        parent_(std::move(parent)),
        self_(std::move(self)) {}

  Result<void> check_v1() const;
  Result<void> delegate_v2();
  Result<void> check_alone_v2() const;
  void leave_leaf();
  void sweep();
  bool is_stale(std::string_view name) const;
  std::string path(std::string_view below) const;

  const std::shared_ptr<GroupFiles> files_;
  const memory::CgroupVersion version_;
  const memory::CgroupFolder parent_;
  const Self self_;
  /// Groups that have an owner. One whose process has just died is empty, but its count of kills is
  /// still wanted.
  const std::shared_ptr<WorkerGroup::Folders> in_use_ = std::make_shared<WorkerGroup::Folders>();
  std::string leaf_;  // v2: the folder that the gateway has moved into; empty where it has not.
  std::uint64_t made_ = 0;
};

}  // namespace pensieve::worker
