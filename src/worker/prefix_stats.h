// Figures of the prefix store, for reports.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace pensieve::worker {

struct PrefixStats {
  Bytes stored_bytes;         // Of all files in the folder, when it was last looked at.
  std::uint32_t parked = 0;   // States in memory.
  std::uint32_t stored = 0;   // Files for this model and build.
  std::uint64_t hits = 0;     // Requests that got a prefix back.
  std::uint64_t misses = 0;   // Requests for which there was none, and little in the KV cache.
  std::uint64_t spilled = 0;  // States written to disk.
  std::uint64_t dropped = 0;  // States that were given up without being on disk.
  std::uint64_t corrupt = 0;  // Files that were damaged, and removed.
  bool disk_failing = false;
  bool operator==(const PrefixStats&) const = default;
};

}  // namespace pensieve::worker
