#include "memory/cgroup.h"

#include <utility>

#include <fmt/core.h>
#include <unistd.h>

#include "memory/cgroup_place.h"

namespace pensieve::memory {

Result<std::unique_ptr<CgroupMemory>> CgroupMemory::open(const Paths& paths,
                                                         std::string own_group) {
  std::optional<KernelFile> membership;
  if (Result<KernelFile> file = KernelFile::open(paths.membership)) {
    membership = std::move(*file);
  } else if (file.error().code != Code::kNotFound) {
    return std::unexpected(file.error());
  }
  return std::unique_ptr<CgroupMemory>(
      new CgroupMemory(std::move(membership), paths.mountinfo, std::move(own_group)));
}

CgroupMemory::CgroupMemory(std::optional<KernelFile> membership, std::string mountinfo_path,
                           std::string own_group)
    : membership_(std::move(membership)),
      mountinfo_path_(std::move(mountinfo_path)),
      own_group_(std::move(own_group)) {}

Result<std::optional<Reading>> CgroupMemory::read() {
  if (!membership_) return std::nullopt;
  KernelText buffer;
  const Result<std::string_view> membership = membership_->read(buffer);
  if (!membership) return std::unexpected(membership.error());
  if (located_for_ != *membership) {
    if (const Result<void> located = locate(*membership); !located) {
      return std::unexpected(located.error());
    }
  }
  Result<std::optional<Reading>> reading = read_smallest();
  if (!reading) located_for_.reset();
  return reading;
}

Result<void> CgroupMemory::locate(std::string_view membership) {
  located_for_.reset();
  groups_.clear();
  const Result<KernelFile> mountinfo = KernelFile::open(mountinfo_path_);
  if (!mountinfo) return std::unexpected(mountinfo.error());
  const Result<std::string> mounts = mountinfo->read_long();
  if (!mounts) return std::unexpected(mounts.error());
  Result<std::optional<CgroupPlace>> place = locate_memory_cgroup(membership, *mounts);
  if (!place) return std::unexpected(place.error());
  if (*place) {
    for (CgroupFolder& group : (*place)->groups) {
      if (!own_group_.empty() && group.name == own_group_) continue;
      // Only a cgroup has this file. Without the check, a folder that is hidden under another
      // mount or that vanished would look like a v2 group without limits.
      if (::access((group.folder + "/cgroup.procs").c_str(), F_OK) != 0) {
        return fail(Code::kUnavailable, fmt::format("{} is not a cgroup", group.folder));
      }
      groups_.emplace_back(std::move(group), (*place)->version);
    }
  }
  located_for_ = std::string(membership);
  return {};
}

Result<std::optional<Reading>> CgroupMemory::read_smallest() {
  const CgroupGroup* smallest = nullptr;
  CgroupGroup::Headroom least;
  for (CgroupGroup& group : groups_) {
    const Result<std::optional<CgroupGroup::Headroom>> headroom = group.read();
    if (!headroom) return std::unexpected(headroom.error());
    if (!*headroom || (smallest != nullptr && (*headroom)->available >= least.available)) continue;
    smallest = &group;
    least = **headroom;
  }
  if (smallest == nullptr) return std::nullopt;
  return Reading{least.available, least.limit, "cgroup " + smallest->name()};
}

}  // namespace pensieve::memory
