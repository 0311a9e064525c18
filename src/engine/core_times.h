// Where the time of the processor's cores goes: the readings that ThreadCount follows.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "engine/thread_count.h"

namespace pensieve::engine {

/// The reading of this moment; empty where the system does not say (all but Linux, and sandboxes
/// that hide it). Costs about as much as reading a small file.
std::optional<CoreTimes> read_core_times(const Clock& clock);

/// The idle time in `stat`, the text of /proc/stat with its times in units of `tick`, of those
/// cores for which `counts(number)` holds. A core that only waits for a disk is idle. Empty if
/// there is none of these cores or the line of one of them cannot be read.
std::optional<Duration> idle_in(std::string_view stat, Duration tick,
                                const std::function<bool(unsigned)>& counts);

}  // namespace pensieve::engine
