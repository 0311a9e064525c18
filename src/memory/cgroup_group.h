// The limit of one memory cgroup, v1 or v2 (Linux).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/cgroup_place.h"
#include "memory/kernel_file.h"

namespace pensieve::memory {

/// Text of memory.max, memory.high or memory.limit_in_bytes. Empty: no limit, either `max` or the
/// v1 value for it, 2^63 rounded down to pages. Errors: kUnavailable for anything else.
Result<std::optional<Bytes>> parse_cgroup_limit(std::string_view text);

/// Text of memory.stat: the file pages on the LRU lists, of the group and all below it. They can
/// be dropped, or written back and then dropped, without swapping. Shared memory is not among
/// them (it stands on the anonymous lists), nor are locked pages.
Result<Bytes> parse_cgroup_file_cache(std::string_view text, CgroupVersion version);

/// Thread-safety: one thread at a time. Keeps up to four descriptors open.
class CgroupGroup {
 public:
  struct Headroom {
    Bytes available;  // limit - usage + file cache; at most `limit`.
    Bytes limit;
  };

  CgroupGroup(CgroupFolder group, CgroupVersion version);

  /// Reads the limit and, where there is one, the use. Both may change at any time. Empty: this
  /// group sets no limit now; that includes a v2 group without limit files (the root, or one for
  /// which the controller is not switched on).
  Result<std::optional<Headroom>> read();

  const std::string& name() const { return group_.name; }

 private:
  Result<std::optional<Bytes>> read_limit();
  Result<std::optional<Bytes>> read_limit_file(std::optional<KernelFile>& file,
                                               std::string_view name);
  Result<std::string_view> read_file(std::optional<KernelFile>& file, std::string_view name,
                                     KernelText& buffer);

  CgroupFolder group_;
  CgroupVersion version_;
  // Opened when first needed: a v2 group's limit files appear when its controller is switched on.
  std::optional<KernelFile> max_;
  std::optional<KernelFile> high_;
  std::optional<KernelFile> usage_;
  std::optional<KernelFile> stat_;
};

}  // namespace pensieve::memory
