// What the payloads of frames say: JSON for control, raw bytes for text. One struct per frame
// type that has a payload; encode() and decode_*() are each other's inverse.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/protection.h"
#include "engine/engine.h"
#include "memory/level.h"
#include "worker/memory_messages.h"
#include "worker/prefix_stats.h"

namespace pensieve::worker {

/// kHello: the worker's first frame.
struct Hello {
  std::string engine;            // "llama", "scripted".
  std::string version;           // The worker program's; the gateway refuses another than its own.
  Protections protections = {};  // How it has confined itself.
};

/// kGenerate.
struct GenerateRequest {
  engine::Prompt prompt;
  std::uint32_t output_tokens_max = 0;
  std::vector<std::string> stop_sequences;
  engine::Sampling sampling;
};

/// kAccepted: the prompt is tokenised and fits; processing begins when a sequence is free.
struct Accepted {
  std::uint32_t input_tokens = 0;
};

/// kStarted: the request has its sequence.
struct Started {
  std::uint32_t cached_tokens = 0;  // Of the prompt, found in the KV cache.
};

enum class StopCause : std::uint8_t { kEndOfTurn, kTokenLimit, kStopSequence, kWindowFull };

/// kDone.
struct Done {
  StopCause cause = StopCause::kEndOfTurn;
  std::string stop_sequence;  // Set for kStopSequence.
  std::uint32_t output_tokens = 0;
  std::uint32_t thinking_tokens = 0;  // Of those, also where nobody sees the thoughts.
  double prefill_seconds = 0;         // From kStarted to the first token.
  double decode_seconds = 0;          // From the first token to the end.
};

/// kFailed: this request (or this plan, load, ...) cannot be served; the worker goes on.
struct Failed {
  Code code = Code::kInternal;
  std::string message;
};

/// kRefused: the worker has no memory for it: its own check, right before generation, says no, or
/// the request needs KV cells that were refused for too long.
struct Refused {
  memory::Level level = memory::Level::kCritical;
  std::optional<Bytes> available;
  std::string reason = {};  // For people. Empty: level and available say it all.
};

/// kCounted.
struct Counted {
  std::uint32_t input_tokens = 0;
};

/// Payload of a kClearCache that is to remove the prefixes on disk as well; else it is empty.
inline constexpr std::string_view kClearStoredToo = "stored";

/// kCleared.
struct Cleared {
  std::uint32_t dropped_tokens = 0;  // Whose KV was dropped, in the cache and parked.
  Bytes freed;                       // Resident memory that came back, measured.
  Bytes stored{};                    // Files that are being removed, where that was asked for.
};

/// kHeartbeat: sent every second as long as the engine makes progress or has nothing to do.
struct Heartbeat {
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint32_t cached_tokens = 0;  // Held, over all sequences; shared ones count for each.
  std::uint32_t cells = 0;          // Of the KV cache; 0 before a load.
  std::uint32_t cells_used = 0;     // Of those.
  Bytes resident;                   // Of the worker process, all pages.
  Bytes anonymous;                  // Of those, what no file backs: what a load really took.
  Bytes parked_bytes{};             // Of those, states of idle sequences that are kept in RAM.
  PrefixStats prefixes{};           // What is kept outside of the KV cache.
};

std::string encode(const Hello& hello);
std::string encode(const engine::LoadOptions& options);
std::string encode(const engine::Plan& plan);
std::string encode(const engine::ModelInfo& info);
std::string encode(const engine::Prompt& prompt);
std::string encode(const GenerateRequest& request);
std::string encode(const Accepted& accepted);
std::string encode(const Started& started);
std::string encode(const Done& done);
std::string encode(const Failed& failed);
std::string encode(const Refused& refused);
std::string encode(const Counted& counted);
std::string encode(const Cleared& cleared);
/// As heartbeats and status pages say it.
boost::json::object to_json(const PrefixStats& prefixes);
std::string encode(const Heartbeat& heartbeat);

// Errors: kInvalidArgument where the payload is not JSON of the expected shape.
Result<Hello> decode_hello(std::string_view payload);
Result<engine::LoadOptions> decode_load_options(std::string_view payload);
Result<engine::Plan> decode_plan(std::string_view payload);
Result<engine::ModelInfo> decode_model_info(std::string_view payload);
Result<engine::Prompt> decode_prompt(std::string_view payload);
Result<GenerateRequest> decode_generate_request(std::string_view payload);
Result<Accepted> decode_accepted(std::string_view payload);
Result<Started> decode_started(std::string_view payload);
Result<Done> decode_done(std::string_view payload);
Result<Failed> decode_failed(std::string_view payload);
Result<Refused> decode_refused(std::string_view payload);
Result<Counted> decode_counted(std::string_view payload);
Result<Cleared> decode_cleared(std::string_view payload);
Result<Heartbeat> decode_heartbeat(std::string_view payload);

}  // namespace pensieve::worker
