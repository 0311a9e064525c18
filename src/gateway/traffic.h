// What the gateway has answered so far: plain counters, kept by the routes and read by /metrics.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>

#include "memory/level.h"

namespace pensieve::gateway {

/// How a POST /v1/messages ended that had passed admission; each has exactly one.
enum class MessageEnd : std::uint8_t {
  kComplete,     // A whole message, streamed or not.
  kErrorStatus,  // Nothing was sent; the answer is an error status.
  kErrorEvent,   // The answer had begun: it ended with an `error` event, or was cut off.
  kClientGone,   // The client hung up first.
};
inline constexpr std::array kMessageEnds{MessageEnd::kComplete, MessageEnd::kErrorStatus,
                                         MessageEnd::kErrorEvent, MessageEnd::kClientGone};

constexpr std::string_view name(MessageEnd end) {
  switch (end) {
    case MessageEnd::kComplete:
      return "complete";
    case MessageEnd::kErrorStatus:
      return "error_status";
    case MessageEnd::kErrorEvent:
      return "error_event";
    case MessageEnd::kClientGone:
      break;
  }
  return "client_gone";
}

/// Since the server started; nothing is ever taken back. Bounded: statuses are those that we send.
///
/// Thread-safety: the io thread only.
struct Traffic {
  std::map<unsigned, std::uint64_t> responses;      // By HTTP status; a stream counts as its 200.
  std::map<MessageEnd, std::uint64_t> messages;     // Absent is none.
  std::map<memory::Level, std::uint64_t> refusals;  // For lack of memory, by the level then.
  std::uint64_t input_tokens = 0;   // Of accepted prompts, those found in a cache included.
  std::uint64_t cached_tokens = 0;  // Of those, found in a cache.
  std::uint64_t output_tokens = 0;  // Of messages that ended complete.
};

}  // namespace pensieve::gateway
