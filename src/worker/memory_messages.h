// What the payloads of frames about memory say: what a worker may use, and how many KV cells it
// has. All are about the worker (request id 0).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/level.h"

namespace pensieve::worker {

/// kLimits: what the worker may use from now on. Obeyed at its next step, and no request is dropped
/// for it: what runs beyond a limit goes on, and newcomers wait.
struct Limits {
  std::uint32_t sequences_max = 0;    // Requests that run at once; one always may.
  std::uint32_t step_tokens_max = 0;  // Prompt tokens in one step; one always may.
  bool caches_grow = true;            // Whether cells may be asked for to keep idle KV.
  Bytes parked_bytes_max;             // States of idle sequences in RAM. 0: to disk with them.
  Bytes stored_bytes_max;             // States of idle sequences on disk.
  bool operator==(const Limits&) const = default;
};

/// kResize: the worker shall have this many KV cells, and may have them: where they are more than
/// now, the memory for them and for the resize itself is reserved.
struct Resize {
  std::uint32_t cells = 0;
};

/// kResizeRefused: not now. The worker goes on with the cells that it has and may ask again.
struct ResizeRefused {
  memory::Level level = memory::Level::kCritical;
  std::optional<Bytes> available;
  std::string reason;  // For people: what was asked, what there is.
};

/// kNeedCells: what runs and waits needs more cells than there are. Sent again about once a second
/// as long as that is so. The answer is kResize (with `cells_wanted` or more, or with fewer, as far
/// as memory goes) or kResizeRefused.
struct NeedCells {
  std::uint32_t cells_now = 0;
  std::uint32_t cells_wanted = 0;
};

/// kResized: one for each kResize, also where nothing or not all could be done: a worker does not
/// take cells from requests that run.
struct Resized {
  std::uint32_t cells = 0;           // That there are now.
  std::uint32_t cells_used = 0;      // Of those.
  std::uint32_t dropped_tokens = 0;  // Of idle sequences, that had to go for it.
};

std::string encode(const Limits& limits);
std::string encode(const Resize& resize);
std::string encode(const ResizeRefused& refused);
std::string encode(const NeedCells& need);
std::string encode(const Resized& resized);

// Errors: kInvalidArgument where the payload is not JSON of the expected shape.
Result<Limits> decode_limits(std::string_view payload);
Result<Resize> decode_resize(std::string_view payload);
Result<ResizeRefused> decode_resize_refused(std::string_view payload);
Result<NeedCells> decode_need_cells(std::string_view payload);
Result<Resized> decode_resized(std::string_view payload);

}  // namespace pensieve::worker
