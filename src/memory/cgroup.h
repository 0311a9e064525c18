// What the cgroups around this process would still give it, v1 and v2 (Linux).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "memory/cgroup_group.h"
#include "memory/kernel_file.h"
#include "memory/meter.h"

namespace pensieve::memory {

/// The memory that every enclosing cgroup, up to the root of the mount, would still give us: the
/// smallest counts. Groups above that root (a container's host) are not visible; their limits
/// cannot be honoured here, only those of the container itself.
///
/// Every read looks anew at the group that we are in and at all limits, because both change while
/// we run. A failed read makes the next one start from the beginning.
class CgroupMemory final : public Meter {
 public:
  /// The texts that say where we are. Tests point them at a tree of their own.
  struct Paths {
    std::string membership = "/proc/self/cgroup";
    std::string mountinfo = "/proc/self/mountinfo";
  };

  /// Opens the texts; they are about the process that calls this, also after a fork().
  /// A kernel without cgroups (no membership file) gives a meter that never sets a limit.
  /// `own_group` names a group whose limit is left out: one that was made for this process alone
  /// and follows what is reserved for it, so that its being full says nothing of the machine.
  static Result<std::unique_ptr<CgroupMemory>> open(const Paths& paths, std::string own_group = "");
  static Result<std::unique_ptr<CgroupMemory>> open() { return open(Paths()); }

  Result<std::optional<Reading>> read() override;

 private:
  CgroupMemory(std::optional<KernelFile> membership, std::string mountinfo_path,
               std::string own_group);
  Result<void> locate(std::string_view membership);
  Result<std::optional<Reading>> read_smallest();

  std::optional<KernelFile> membership_;  // Empty where the kernel has no cgroups.
  std::string mountinfo_path_;
  std::string own_group_;                   // Empty where every group counts.
  std::optional<std::string> located_for_;  // The membership that groups_ belong to.
  std::vector<CgroupGroup> groups_;
};

}  // namespace pensieve::memory
