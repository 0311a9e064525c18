// libFuzzer: whatever bytes stand in the socket between gateway and worker, they are frames or an
// error, and each payload is what its type says or an error.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "worker/embed_messages.h"
#include "worker/frame.h"
#include "worker/messages.h"

namespace {

using pensieve::worker::Frame;
using pensieve::worker::FrameType;

void require(bool claim) {
  if (!claim) std::abort();
}

/// What was understood can be said again, and is understood then too.
template <class Decode>
void check(std::string_view payload, const Decode& decode) {
  if (const auto message = decode(payload)) {
    require(decode(pensieve::worker::encode(*message)).has_value());
  }
}

void check_payload(const Frame& frame) {
  namespace worker = pensieve::worker;
  const std::string_view payload = frame.payload;
  switch (frame.type) {
    case FrameType::kPlan:
    case FrameType::kLoad:
      return check(payload, worker::decode_load_options);
    case FrameType::kGenerate:
      return check(payload, worker::decode_generate_request);
    case FrameType::kCountTokens:
      return check(payload, worker::decode_prompt);
    case FrameType::kLimits:
      return check(payload, worker::decode_limits);
    case FrameType::kResize:
      return check(payload, worker::decode_resize);
    case FrameType::kEmbed:
      return check(payload, worker::decode_embed_request);
    case FrameType::kEmbedded:
      return check(payload, worker::decode_embedded);
    case FrameType::kResizeRefused:
      return check(payload, worker::decode_resize_refused);
    case FrameType::kHello:
      return check(payload, worker::decode_hello);
    case FrameType::kPlanned:
      return check(payload, worker::decode_plan);
    case FrameType::kLoaded:
      return check(payload, worker::decode_model_info);
    case FrameType::kAccepted:
      return check(payload, worker::decode_accepted);
    case FrameType::kStarted:
      return check(payload, worker::decode_started);
    case FrameType::kDone:
      return check(payload, worker::decode_done);
    case FrameType::kFailed:
      return check(payload, worker::decode_failed);
    case FrameType::kRefused:
      return check(payload, worker::decode_refused);
    case FrameType::kCounted:
      return check(payload, worker::decode_counted);
    case FrameType::kCleared:
      return check(payload, worker::decode_cleared);
    case FrameType::kHeartbeat:
      return check(payload, worker::decode_heartbeat);
    case FrameType::kNeedCells:
      return check(payload, worker::decode_need_cells);
    case FrameType::kResized:
      return check(payload, worker::decode_resized);
    default:
      return;  // Raw bytes, or no payload.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int file = memfd_create("frames", 0);
  require(file >= 0 && ftruncate(file, 0) == 0);
  require(pwrite(file, data, size, 0) == static_cast<ssize_t>(size));
  require(lseek(file, 0, SEEK_SET) == 0);
  std::size_t read = 0;
  while (const auto frame = pensieve::worker::read_frame(file)) {
    read += pensieve::worker::kFrameHeaderBytes + frame->payload.size();
    require(read <= size);
    check_payload(*frame);
  }
  return 0;
}
