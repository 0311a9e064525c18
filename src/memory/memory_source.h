// Where the figure "memory still available to us" comes from.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace pensieve::memory {

/// What one look at the memory showed.
struct Reading {
  Bytes available;         // What may still be taken without swapping. At most `total`.
  Bytes total;             // All there is where `available` was found: MemTotal or a group's limit.
  std::string limited_by;  // The meter that had the least, in words: "machine", "cgroup /a/b".
};

/// What the machine's own meter calls itself in `limited_by`.
inline constexpr std::string_view kMachineMeter = "machine";

/// One platform's answer to "how much memory may we still use?": the smallest of what the machine
/// and every enclosing cgroup would give us, counting page cache that can be dropped.
///
/// Thread-safety: calls come from one thread at a time.
class MemorySource {
 public:
  virtual ~MemorySource() = default;

  /// Takes a reading. Takes well under 100 µs; allocates no more than the text of `limited_by`.
  ///
  /// Errors: where any part of the figure cannot be read or parsed. It is never reported as zero
  /// or "unlimited" instead: the caller has to see that we do not know.
  virtual Result<Reading> read() = 0;
};

}  // namespace pensieve::memory
