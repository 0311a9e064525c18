// Where the memory cgroups around this process stand in the file system (Linux). Pure: from the
// texts of /proc/self/cgroup and /proc/self/mountinfo to a list of folders.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pensieve::memory {

enum class CgroupVersion : std::uint8_t { kV1, kV2 };

struct CgroupFolder {
  std::string name;    // As the kernel names the group: "/user.slice/a".
  std::string folder;  // "/sys/fs/cgroup/user.slice/a".
};

/// How the leaf is called into which a gateway moves itself to make room for its workers' groups
/// beside it (v2). What counts as our own group is the one around it.
inline constexpr std::string_view kGatewayLeafPrefix = "pensieve-gateway-";

/// The group that this process is in, then every enclosing one up to the root of the mount. What
/// lies above that root (outside a container) is not visible from here and not in the list.
struct CgroupPlace {
  CgroupVersion version = CgroupVersion::kV2;
  std::vector<CgroupFolder> groups;  // Innermost first; never empty.
};

/// The kernel binds the memory controller to one hierarchy: to v1 where /proc/self/cgroup lists
/// `memory`, else to v2 where it lists `0::`. Empty where it lists neither.
///
/// Errors: kUnavailable where our group lies below no visible mount of that hierarchy. There may
/// be limits then that we cannot see, and that is not the same as no limit.
Result<std::optional<CgroupPlace>> locate_memory_cgroup(std::string_view membership,
                                                        std::string_view mountinfo);

/// Our group of the v2 hierarchy, whichever hierarchy controls memory: stalls (PSI) are told per v2
/// group also where limits are v1's. Empty and errors as above.
Result<std::optional<CgroupPlace>> locate_unified_cgroup(std::string_view membership,
                                                         std::string_view mountinfo);

}  // namespace pensieve::memory
