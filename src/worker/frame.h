// Frames between gateway and worker over a Unix socketpair: a fixed header, then the payload.
//
//   0        2         3      4            8           12              16
//   | magic  | version | type | request id | length    | reserved (0)  | payload ...
//
// All numbers are little endian. Either side treats a wrong magic, version, type or length as the
// end of the conversation: there is no way to find the next frame after a bad one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pensieve::worker {

inline constexpr std::uint16_t kFrameMagic = 0x4550;  // "PE"
inline constexpr std::uint8_t kProtocolVersion = 2;
inline constexpr std::size_t kFrameHeaderBytes = 16;

/// Longest payload. A request body is at most 32 MiB and JSON may double it by escapes.
inline constexpr std::uint32_t kFramePayloadBytesMax = 72U << 20;

enum class FrameType : std::uint8_t {
  // Gateway to worker.
  kPlan = 1,
  kLoad = 2,
  kGenerate = 3,
  kCancel = 4,
  kCountTokens = 5,
  kClearCache = 6,
  kShutdown = 7,
  kLimits = 8,          // What the worker may use from now on.
  kResize = 9,          // Answered by one kResized, also where nothing could be changed.
  kResizeRefused = 10,  // No to the last kNeedCells.
  kEmbed = 11,          // One input; answered by one kEmbedded, kFailed or kRefused.
  // Worker to gateway.
  kHello = 32,
  kPlanned = 33,
  kLoadProgress = 34,
  kLoaded = 35,
  kAccepted = 36,
  kStarted = 37,
  kText = 38,
  kDone = 39,
  kFailed = 40,
  kRefused = 41,
  kCounted = 42,
  kCleared = 43,
  kHeartbeat = 44,
  kNeedCells = 45,
  kResized = 46,
  // Content of an answer besides kText, as raw bytes.
  kThinking = 47,
  kCallStart = 48,  // The tool's name; kCallInput and kCallEnd follow.
  kCallInput = 49,  // The next part of the arguments' JSON.
  kCallEnd = 50,    // Nothing: the arguments are complete.
  kEmbedded = 51,
};

struct FrameHeader {
  FrameType type = FrameType::kHeartbeat;
  std::uint32_t request = 0;  // 0: about the worker, not about a request.
  std::uint32_t length = 0;   // Of the payload, in bytes.
};

struct Frame {
  FrameType type = FrameType::kHeartbeat;
  std::uint32_t request = 0;
  std::string payload;
};

std::array<std::byte, kFrameHeaderBytes> encode_header(const FrameHeader& header);

/// Errors: kInvalidArgument for wrong magic, another protocol version, an unknown type, or a
/// length above kFramePayloadBytesMax.
Result<FrameHeader> decode_header(std::span<const std::byte, kFrameHeaderBytes> bytes);

/// Header and payload in one string, ready to be written.
std::string encode_frame(FrameType type, std::uint32_t request, std::string_view payload);

// Blocking calls for the worker's end. Both go on after EINTR and after partial transfers.

/// Errors: kUnavailable when the other end is gone.
Result<void> write_frame(int fd, FrameType type, std::uint32_t request, std::string_view payload);

/// Errors: kUnavailable at end of file between frames; kInvalidArgument for a bad or cut frame.
Result<Frame> read_frame(int fd);

}  // namespace pensieve::worker
