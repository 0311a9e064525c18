// The cgroup file system as far as worker groups need it: a seam, so that the rules of a kernel
// that is not at hand (v2, delegated) can be played by a fake.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pensieve::worker {

/// Folders are groups, files are their settings. Calls may block for as long as the kernel takes
/// to reclaim memory (lowering a limit); everything else is immediate.
class GroupFiles {
 public:
  virtual ~GroupFiles() = default;

  // Errors: kNotFound where the folder or file is not there; kUnavailable with the kernel's reason
  // otherwise.
  virtual Result<void> make_group(const std::string& folder) = 0;
  virtual Result<void> remove_group(const std::string& folder) = 0;
  virtual Result<void> write(const std::string& path, std::string_view text) = 0;
  virtual Result<std::string> read(const std::string& path) = 0;
  /// Names of the groups right below `folder`.
  virtual Result<std::vector<std::string>> groups_below(const std::string& folder) = 0;
};

/// The kernel's own.
std::unique_ptr<GroupFiles> kernel_group_files();

}  // namespace pensieve::worker
