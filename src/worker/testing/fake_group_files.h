#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include "memory/cgroup_place.h"
#include "memory/kernel_text.h"
#include "worker/group_files.h"

namespace pensieve::worker {

/// A tree of groups that behaves as the kernel's does where we depend on it: a new group has its
/// files, a process is in one group, a group with processes or groups in it cannot be removed, and
/// in v2 a group has either processes or controllers for those below it.
class FakeGroupFiles final : public GroupFiles {
 public:
  explicit FakeGroupFiles(memory::CgroupVersion version) : version_(version) {}

  // What a test sets.
  void add_group(const std::string& folder) {
    members_[folder];
    if (version_ == memory::CgroupVersion::kV2) {
      files_[folder + "/cgroup.controllers"] = "cpu memory pids\n";
      files_[folder + "/cgroup.subtree_control"] = "\n";
      for (const char* name : {"memory.max", "memory.swap.max"}) files_[at(folder, name)] = "max\n";
      files_[folder + "/memory.oom.group"] = "0\n";
      files_[folder + "/memory.events"] = "max 0\noom 0\noom_kill 0\n";
      set_use(folder, 0, 0);
    } else {
      files_[folder + "/memory.use_hierarchy"] = "1\n";
      files_[folder + "/memory.swappiness"] = "60\n";
      for (const char* name : {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}) {
        files_[at(folder, name)] = "9223372036854771712\n";
      }
      files_[folder + "/memory.oom_control"] = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n";
      set_use(folder, 0, 0);
    }
  }
  void set_use(const std::string& folder, std::uint64_t all, std::uint64_t file_cache) {
    const bool v1 = version_ == memory::CgroupVersion::kV1;
    files_[at(folder, v1 ? "memory.usage_in_bytes" : "memory.current")] = fmt::format("{}\n", all);
    files_[at(folder, "memory.stat")] =
        fmt::format("{0}inactive_file {1}\n{0}active_file 0\n", v1 ? "total_" : "", file_cache);
  }
  void put(const std::string& pid, const std::string& folder) {
    for (auto& [name, pids] : members_) std::erase(pids, pid);
    if (!folder.empty()) members_[folder].push_back(pid);
  }
  void set(const std::string& path, std::string text) { files_[path] = std::move(text); }
  void drop_file(const std::string& path) { files_.erase(path); }
  void refuse(const std::string& path, std::string why) { refused_[path] = std::move(why); }

  // What a test looks at.
  bool has_group(const std::string& folder) const { return members_.contains(folder); }
  std::string text(const std::string& path) const { return files_.at(path); }
  const std::vector<std::string>& members(const std::string& folder) const {
    return members_.at(folder);
  }
  /// Writes so far, as "FILE TEXT", without the folder.
  std::vector<std::string> writes;

  Result<void> make_group(const std::string& folder) override {
    const std::string parent = folder.substr(0, folder.rfind('/'));
    if (refused_.contains(folder)) return busy(folder, refused_.at(folder));
    if (refused_.contains(parent + "/*")) return busy(folder, refused_.at(parent + "/*"));
    if (members_.contains(folder)) return busy(folder, "File exists");
    add_group(folder);
    if (version_ == memory::CgroupVersion::kV2 &&
        files_.at(parent + "/cgroup.subtree_control").find("memory") == std::string::npos) {
      for (const char* name : {"memory.max", "memory.swap.max", "memory.oom.group",
                               "memory.current", "memory.stat", "memory.events"}) {
        files_.erase(at(folder, name));
      }
    }
    return {};
  }

  Result<void> remove_group(const std::string& folder) override {
    if (!members_.contains(folder)) return fail(Code::kNotFound, folder);
    const auto below = groups_below(folder);
    if (!members_[folder].empty() || !below->empty()) return busy(folder, "busy");
    members_.erase(folder);
    std::erase_if(files_, [&](const auto& file) { return file.first.starts_with(folder + "/"); });
    return {};
  }

  Result<void> write(const std::string& path, std::string_view text) override {
    const std::string folder = path.substr(0, path.rfind('/'));
    const std::string name = path.substr(path.rfind('/') + 1);
    if (refused_.contains(path)) return busy(path, refused_.at(path));
    if (name == "cgroup.procs") {
      if (!members_.contains(folder)) return fail(Code::kNotFound, path);
      if (version_ == memory::CgroupVersion::kV2 && gives_controllers(folder)) {
        return busy(path, "processes in a group that gives controllers");
      }
      put(std::string(text), folder);
      return {};
    }
    if (!files_.contains(path)) return fail(Code::kNotFound, path);
    writes.push_back(fmt::format("{} {}", name, text));
    if (name == "cgroup.subtree_control") return give(folder, text);
    files_[path] = fmt::format("{}\n", text);
    return {};
  }

  Result<std::string> read(const std::string& path) override {
    const std::string folder = path.substr(0, path.rfind('/'));
    if (path.ends_with("/cgroup.procs")) {
      if (!members_.contains(folder)) return fail(Code::kNotFound, path);
      std::string text;
      for (const std::string& pid : members_.at(folder)) text += pid + "\n";
      return text;
    }
    if (!files_.contains(path)) return fail(Code::kNotFound, path);
    return files_.at(path);
  }

  Result<std::vector<std::string>> groups_below(const std::string& folder) override {
    std::vector<std::string> names;
    for (const auto& [name, pids] : members_) {
      if (name.starts_with(folder + "/") && name.find('/', folder.size() + 1) == name.npos) {
        names.push_back(name.substr(folder.size() + 1));
      }
    }
    return names;
  }

 private:
  static std::string at(const std::string& folder, std::string_view name) {
    return fmt::format("{}/{}", folder, name);
  }
  static std::unexpected<Error> busy(const std::string& path, const std::string& why) {
    return pensieve::fail(Code::kUnavailable, path + ": " + why);
  }
  static std::unexpected<Error> fail(Code code, const std::string& path) {
    return pensieve::fail(code, path + " is not there");
  }
  bool gives_controllers(const std::string& folder) const {
    return files_.at(folder + "/cgroup.subtree_control") != "\n";
  }
  Result<void> give(const std::string& folder, std::string_view text) {
    if (text == "+memory" && !members_[folder].empty()) return busy(folder, "has processes");
    files_[folder + "/cgroup.subtree_control"] = text == "+memory" ? "memory\n" : "\n";
    return {};
  }

  const memory::CgroupVersion version_;
  std::map<std::string, std::string> files_;
  std::map<std::string, std::vector<std::string>> members_;
  std::map<std::string, std::string> refused_;
};

}  // namespace pensieve::worker
