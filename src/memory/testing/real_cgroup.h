#pragma once

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/cgroup_place.h"
#include "memory/kernel_file.h"

namespace pensieve::memory {

/// A memory cgroup of the kernel with a limit, made below the group that the test runs in and
/// removed with the object (by then no process may be left in it).
class RealCgroup {
 public:
  /// Errors: where this machine does not let us make one, with the reason.
  static Result<std::unique_ptr<RealCgroup>> make(Bytes limit) {
    const Result<CgroupPlace> own = own_place();
    if (!own) return std::unexpected(own.error());
    const CgroupFolder& parent = own->groups.front();
    const std::string leaf = fmt::format("/pensieve-test-{}", ::getpid());
    std::unique_ptr<RealCgroup> group(new RealCgroup);
    group->version_ = own->version;
    group->name_ = (parent.name == "/" ? "" : parent.name) + leaf;
    const std::string folder = parent.folder + leaf;
    if (::mkdir(folder.c_str(), 0755) != 0) return refused("mkdir " + folder);
    group->folder_ = folder;
    if (const Result<void> limited = group->set_limit(limit); !limited) {
      return std::unexpected(limited.error());
    }
    return group;
  }
  ~RealCgroup() {
    if (!folder_.empty()) ::rmdir(folder_.c_str());
  }
  RealCgroup(const RealCgroup&) = delete;
  RealCgroup& operator=(const RealCgroup&) = delete;

  Result<void> set_limit(Bytes limit) const {
    return write(version_ == CgroupVersion::kV1 ? "memory.limit_in_bytes" : "memory.max",
                 std::to_string(limit.count()));
  }

  /// Moves the calling process into the group.
  Result<void> enter() const { return write("cgroup.procs", "0"); }

  /// What /proc/self/cgroup would say to a process in the group.
  std::string membership() const {
    return (version_ == CgroupVersion::kV1 ? "7:memory:" : "0::") + name_ + "\n";
  }
  const std::string& name() const { return name_; }

 private:
  RealCgroup() = default;

  static Result<CgroupPlace> own_place() {
    KernelText buffer;
    const Result<KernelFile> membership = KernelFile::open("/proc/self/cgroup");
    const Result<KernelFile> mountinfo = KernelFile::open("/proc/self/mountinfo");
    if (!membership || !mountinfo) return fail(Code::kNotFound, "no cgroups on this machine");
    const Result<std::string_view> groups = membership->read(buffer);
    const Result<std::string> mounts = mountinfo->read_long();
    if (!groups || !mounts) return fail(Code::kUnavailable, "cannot read where we are");
    const Result<std::optional<CgroupPlace>> place = locate_memory_cgroup(*groups, *mounts);
    if (!place) return std::unexpected(place.error());
    if (!*place) return fail(Code::kNotFound, "no memory cgroups on this machine");
    return **place;
  }

  static std::unexpected<Error> refused(const std::string& action) {
    return fail(Code::kUnavailable, fmt::format("{}: errno {}", action, errno));
  }

  Result<void> write(std::string_view file, std::string_view text) const {
    const std::string path = fmt::format("{}/{}", folder_, file);
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return refused("open " + path);
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0) {
      const auto error = refused("write " + path);
      ::close(descriptor);
      return error;
    }
    ::close(descriptor);
    return {};
  }

  CgroupVersion version_ = CgroupVersion::kV1;
  std::string name_;
  std::string folder_;  // Empty until made.
};

}  // namespace pensieve::memory
