#include "worker/worker_groups.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "memory/cgroup_group.h"
#include "memory/kernel_file.h"
#include "memory/kernel_text.h"
#include "memory/report.h"
#include "worker/oom_kill_counter.h"

namespace pensieve::worker {
namespace {

using memory::CgroupVersion;

constexpr std::string_view kWorkerPrefix = "pensieve-worker-";
constexpr std::string_view kGatewayPrefix = memory::kGatewayLeafPrefix;

bool has_word(std::string_view text, std::string_view wanted) {
  while (const std::optional<std::string_view> line = memory::next_line(text)) {
    std::string_view words = *line;
    while (!words.empty()) {
      if (memory::next_word(words) == wanted) return true;
    }
  }
  return false;
}

/// The process id in a name of ours; empty for the names of others.
std::optional<pid_t> owner_of(std::string_view name) {
  if (name.starts_with(kWorkerPrefix)) {
    name.remove_prefix(kWorkerPrefix.size());
    const std::size_t end = name.find('-');
    if (end == std::string_view::npos || !memory::parse_count(name.substr(end + 1))) {
      return std::nullopt;
    }
    name = name.substr(0, end);
  } else if (name.starts_with(kGatewayPrefix)) {
    name.remove_prefix(kGatewayPrefix.size());
  } else {
    return std::nullopt;
  }
  const std::optional<std::uint64_t> pid = memory::parse_count(name);
  if (!pid || *pid == 0 || *pid > INT32_MAX) return std::nullopt;
  return static_cast<pid_t>(*pid);
}

}  // namespace

Bytes limit_for(Bytes reserved) {
  if (reserved == Bytes()) return kPlanningLimit;
  const Bytes margin = std::clamp(Bytes(reserved.count() / 8), kMarginLeast, kMarginMost);
  const std::optional<Bytes> limit = checked_add(reserved, margin);
  return limit.value_or(reserved);
}

WorkerGroup::~WorkerGroup() {
  in_use_->erase(folder_);
  if (const Result<void> removed = files_->remove_group(folder_); !removed) {
    log::debug("{}; the next start of a worker tries again", removed.error().message);
  }
}

Result<void> WorkerGroup::prepare() {
  // A worker that swaps is slower than none and takes the machine's disk with it.
  const bool v1 = version_ == CgroupVersion::kV1;
  const Result<void> unswapped =
      v1 ? write_if_there("memory.swappiness", "0") : write_if_there("memory.swap.max", "0");
  if (!unswapped) return unswapped;
  if (!v1) {
    if (Result<void> whole = write_if_there("memory.oom.group", "1"); !whole) return whole;
  }
  return write_limit(kPlanningLimit);
}

Result<void> WorkerGroup::admit(pid_t pid) {
  const std::string text = std::to_string(pid);
  if (Result<void> moved = write("cgroup.procs", text); !moved) return moved;
  const Result<std::string> members = files_->read(folder_ + "/cgroup.procs");
  if (!members) return std::unexpected(members.error());
  if (!has_word(*members, text)) {
    return fail(Code::kUnavailable, fmt::format("process {} is not in the group {}", pid, name_));
  }
  return {};
}

Result<void> WorkerGroup::set_reserved(Bytes reserved) {
  const Bytes wanted = limit_for(reserved);
  if (wanted == limit_) return {};
  if (wanted > limit_) return write_limit(wanted);
  const Result<Use> now = use();
  if (!now) return std::unexpected(now.error());
  if (now->needed >= wanted) {
    return fail(Code::kUnavailable,
                fmt::format("the limit of {} stays at {}GB: its worker needs {}GB, and {}GB would "
                            "be the limit",
                            name_, memory::gb_text(limit_), memory::gb_text(now->needed),
                            memory::gb_text(wanted)));
  }
  const Bytes next = std::max(wanted, saturating_sub(now->all, kReclaimStepMax));
  return next < limit_ ? write_limit(next) : Result<void>();
}

Result<WorkerGroup::Use> WorkerGroup::use() const {
  const bool v1 = version_ == CgroupVersion::kV1;
  const std::string path = folder_ + (v1 ? "/memory.usage_in_bytes" : "/memory.current");
  const Result<std::string> usage = files_->read(path);
  if (!usage) return std::unexpected(usage.error());
  std::string_view text = *usage;
  const std::optional<std::string_view> line = memory::next_line(text);
  const std::optional<std::uint64_t> count = line ? memory::parse_count(*line) : std::nullopt;
  if (!count) return fail(Code::kUnavailable, fmt::format("{}: nonsense: \"{}\"", path, *usage));
  const Result<std::string> stat = files_->read(folder_ + "/memory.stat");
  if (!stat) return std::unexpected(stat.error());
  const Result<Bytes> cache = memory::parse_cgroup_file_cache(*stat, version_);
  if (!cache) return std::unexpected(cache.error());
  return Use{Bytes(*count), saturating_sub(Bytes(*count), *cache)};
}

/// v1 has a second limit, for memory and swap together, which may never be the smaller one; so the
/// order of the two depends on the direction.
Result<void> WorkerGroup::write_limit(Bytes limit) {
  const std::string text = std::to_string(limit.count());
  if (version_ == CgroupVersion::kV2) {
    if (Result<void> written = write("memory.max", text); !written) return written;
  } else {
    const bool raised = limit > limit_ && limit_ != Bytes();
    const std::string_view both[] = {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"};
    const auto first = raised ? write_if_there(both[1], text) : write(both[0], text);
    if (!first) return first;
    const auto second = raised ? write(both[0], text) : write_if_there(both[1], text);
    if (!second) return second;
  }
  limit_ = limit;
  return {};
}

std::optional<std::uint64_t> WorkerGroup::oom_kills() const {
  const bool v1 = version_ == CgroupVersion::kV1;
  const Result<std::string> text =
      files_->read(folder_ + (v1 ? "/memory.oom_control" : "/memory.events"));
  return text ? parse_oom_kills(*text) : std::nullopt;
}

Result<void> WorkerGroup::write(std::string_view file, std::string_view text) {
  return files_->write(fmt::format("{}/{}", folder_, file), text);
}

Result<void> WorkerGroup::write_if_there(std::string_view file, std::string_view text) {
  Result<void> written = write(file, text);
  if (!written && written.error().code == Code::kNotFound) return {};
  return written;
}

Result<std::unique_ptr<WorkerGroups>> WorkerGroups::open(std::shared_ptr<GroupFiles> files,
                                                         const memory::CgroupPlace& place,
                                                         Self self) {
  std::unique_ptr<WorkerGroups> groups(
      new WorkerGroups(std::move(files), place.version, place.groups.front(), std::move(self)));
  const Result<void> ready =
      place.version == CgroupVersion::kV1 ? groups->check_v1() : groups->delegate_v2();
  if (!ready) return std::unexpected(ready.error());
  // Whether we may is best known by trying; the group is removed again at once.
  const Result<std::unique_ptr<WorkerGroup>> tried = groups->make();
  if (!tried) return std::unexpected(tried.error());
  return groups;
}

Result<std::unique_ptr<WorkerGroups>> WorkerGroups::open() {
#if defined(__linux__)
  memory::KernelText buffer;
  const auto membership = memory::KernelFile::open("/proc/self/cgroup");
  if (!membership) return std::unexpected(membership.error());
  const auto mountinfo = memory::KernelFile::open("/proc/self/mountinfo");
  if (!mountinfo) return std::unexpected(mountinfo.error());
  const Result<std::string_view> own = membership->read(buffer);
  if (!own) return std::unexpected(own.error());
  const Result<std::string> mounts = mountinfo->read_long();
  if (!mounts) return std::unexpected(mounts.error());
  const auto place = memory::locate_memory_cgroup(*own, *mounts);
  if (!place) return std::unexpected(place.error());
  if (!*place) return fail(Code::kNotFound, "this kernel has no memory groups");
  const auto is_running = [](pid_t pid) { return ::kill(pid, 0) == 0 || errno != ESRCH; };
  return open(kernel_group_files(), **place, {::getpid(), is_running});
#else
  return fail(Code::kNotFound, "this system has no memory groups");
#endif
}

WorkerGroups::~WorkerGroups() {
  sweep();
  if (!leaf_.empty()) leave_leaf();
}

std::string WorkerGroups::path(std::string_view below) const {
  return fmt::format("{}/{}", parent_.folder, below);
}

std::string WorkerGroups::describe() const {
  return fmt::format("cgroup {}, below {}", version_ == CgroupVersion::kV1 ? "v1" : "v2",
                     parent_.name);
}

/// Old kernels may have groups whose children are not charged to them: a worker in such a child
/// would escape the limit that holds for us.
Result<void> WorkerGroups::check_v1() const {
  const Result<std::string> inherits = files_->read(path("memory.use_hierarchy"));
  if (inherits && inherits->starts_with('0') && parent_.name != "/") {
    return fail(Code::kUnavailable,
                fmt::format("groups below {} would escape its limit (memory.use_hierarchy is 0)",
                            parent_.name));
  }
  return {};
}

Result<void> WorkerGroups::delegate_v2() {
  const Result<std::string> offered = files_->read(path("cgroup.controllers"));
  if (!offered) return std::unexpected(offered.error());
  if (!has_word(*offered, "memory")) {
    return fail(Code::kUnavailable,
                fmt::format("the memory controller is not given to {}", parent_.name));
  }
  const Result<std::string> given = files_->read(path("cgroup.subtree_control"));
  if (!given) return std::unexpected(given.error());
  if (has_word(*given, "memory")) return {};
  if (Result<void> alone = check_alone_v2(); !alone) return alone;

  const std::string leaf = path(fmt::format("{}{}", kGatewayPrefix, self_.pid));
  if (Result<void> made = files_->make_group(leaf); !made) return made;
  leaf_ = leaf;
  Result<void> done = files_->write(leaf_ + "/cgroup.procs", std::to_string(self_.pid));
  if (done) done = files_->write(path("cgroup.subtree_control"), "+memory");
  if (!done) {
    leave_leaf();
    leaf_.clear();
  }
  return done;
}

/// A group with processes in it cannot have groups with controllers below it, and processes that
/// are not ours are not ours to move.
Result<void> WorkerGroups::check_alone_v2() const {
  const Result<std::string> members = files_->read(path("cgroup.procs"));
  if (!members) return std::unexpected(members.error());
  if (*members == fmt::format("{}\n", self_.pid)) return {};
  return fail(Code::kUnavailable,
              fmt::format("other processes are in {} as well, so it cannot have groups below it",
                          parent_.name));
}

void WorkerGroups::leave_leaf() {
  // Each fails where the one before was not done; there is nothing else to do about that.
  std::ignore = files_->write(path("cgroup.subtree_control"), "-memory");
  std::ignore = files_->write(path("cgroup.procs"), std::to_string(self_.pid));
  std::ignore = files_->remove_group(leaf_);
}

bool WorkerGroups::is_stale(std::string_view name) const {
  const std::optional<pid_t> owner = owner_of(name);
  if (!owner || path(name) == leaf_ || in_use_->contains(path(name))) return false;
  // A group of our own process id: of ours that could not be removed in time, or of a namesake
  // before us (in a container the gateway always has the same id).
  if (*owner != self_.pid && self_.is_running(*owner)) return false;
  const Result<std::string> members = files_->read(path(fmt::format("{}/cgroup.procs", name)));
  return members && members->empty();
}

/// The kernel removes no group that somebody is in, so a mistake here costs nobody anything: at
/// worst a gateway in another process namespace makes its group anew.
void WorkerGroups::sweep() {
  const Result<std::vector<std::string>> names = files_->groups_below(parent_.folder);
  if (!names) return;
  for (const std::string& name : *names) {
    if (is_stale(name)) std::ignore = files_->remove_group(path(name));
  }
}

Result<std::unique_ptr<WorkerGroup>> WorkerGroups::make() {
  sweep();
  const std::string leaf = fmt::format("{}{}-{}", kWorkerPrefix, self_.pid, ++made_);
  const std::string above = parent_.name == "/" ? "" : parent_.name;
  const std::string folder = path(leaf);
  if (const Result<void> made = files_->make_group(folder); !made) {
    return std::unexpected(made.error());
  }
  std::unique_ptr<WorkerGroup> group(
      new WorkerGroup(files_, in_use_, version_, fmt::format("{}/{}", above, leaf), folder));
  if (const Result<void> ready = group->prepare(); !ready) return std::unexpected(ready.error());
  return group;
}

}  // namespace pensieve::worker
