// What the server says: messages, stream events, models, token counts. Bytes out, no sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "api/error.h"
#include "base/clock.h"
#include "engine/engine.h"

namespace pensieve::api {

/// Tokens of one request. `input_tokens` excludes those that were read from the cache, as the API
/// defines it.
struct Usage {
  std::uint32_t input_tokens = 0;
  std::uint32_t cache_creation_input_tokens = 0;
  std::uint32_t cache_read_input_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint32_t thinking_tokens = 0;  // Of those; at the start of a stream nobody knows.
};

enum class StopReason : std::uint8_t {
  kEndTurn,
  kToolUse,
  kMaxTokens,
  kStopSequence,
  kContextWindowExceeded,
};
std::string_view name(StopReason reason);  // "end_turn", "model_context_window_exceeded", ...

struct Stop {
  StopReason reason = StopReason::kEndTurn;
  std::string sequence;  // The stop sequence that was met; JSON null where empty.
};

/// A new id: `prefix` ("msg_", "req_") and 24 random characters of [0-9A-Za-z]; unique across
/// restarts.
std::string new_id(std::string_view prefix);

/// A block of an answer that is not streamed.
struct AnswerBlock {
  enum class Kind : std::uint8_t { kText, kThinking, kToolUse, kServerToolUse, kFailedSearch };

  Kind kind = Kind::kText;
  std::string text;     // Of kText and kThinking.
  std::string id = {};  // Of both tool uses, as are the next two, and of the use that failed.
  std::string name = {};
  std::string input = {};      // A JSON object.
  std::string signature = {};  // Of kThinking.
};

/// A whole, not streamed, message. Texts and thoughts without a character vanish, but for thoughts
/// with a signature.
std::string message_body(std::string_view id, std::string_view model,
                         std::span<const AnswerBlock> blocks, const Stop& stop, const Usage& usage);

// Stream events: complete SSE frames, "event: ...\ndata: ...\n\n". Text should be
// whole UTF-8 characters: half a character becomes U+FFFD.

/// Says 1 output token whatever `usage` says, as Anthropic's API does; message_delta has the truth.
std::string message_start_event(std::string_view id, std::string_view model, const Usage& usage);
std::string ping_event();
std::string text_block_start_event(std::uint32_t index);
std::string text_delta_event(std::uint32_t index, std::string_view text);
std::string thinking_block_start_event(std::uint32_t index);
std::string thinking_delta_event(std::uint32_t index, std::string_view thinking);
/// What proves to Anthropic's API that thinking is its own. Ours proves nothing (thinking.h).
std::string signature_delta_event(std::uint32_t index, std::string_view signature);
std::string tool_use_block_start_event(std::uint32_t index, std::string_view id,
                                       std::string_view name);
/// A tool that the server itself uses. Its input comes as that of tool_use does.
std::string server_tool_use_block_start_event(std::uint32_t index, std::string_view id,
                                              std::string_view name);
/// The result of a web search: none, because it is unavailable. The block has no deltas.
std::string failed_search_block_start_event(std::uint32_t index, std::string_view tool_use_id);
/// `json` is the next part of the input's text; the parts of a block are one JSON object.
std::string input_json_delta_event(std::uint32_t index, std::string_view json);
std::string block_stop_event(std::uint32_t index);
/// `usage` is of the whole request: clients overwrite what message_start said.
std::string message_delta_event(const Stop& stop, const Usage& usage);
std::string message_stop_event();
std::string error_event(const ApiError& error, std::string_view request_id);

std::string count_tokens_body(std::uint32_t input_tokens);

/// What this server does with a model now; all else that the API could name is not supported.
struct Capabilities {
  bool batches = false;
  engine::Capabilities engine = {};
};

struct Model {
  std::string id;
  std::string display_name;
  WallTime created_at{};
  /// The real context window, which bounds input and output together. Unknown (JSON null) before
  /// the model was loaded for the first time.
  std::optional<std::uint32_t> input_tokens_max;
  std::optional<std::uint32_t> output_tokens_max;
  std::optional<Capabilities> capabilities;  // Unknown before the first load as well.
};

/// The `limit`, `after_id` and `before_id` of a listing's query, checked.
struct Page {
  std::uint32_t limit = 20;  // 1 to 1000.
  std::string after_id;
  std::string before_id;
};
/// `query` is what follows `?`, still percent-encoded; unknown keys and empty values are ignored.
/// Errors: 400 for a limit that is no integer or out of range, and for both ids at once.
std::expected<Page, ApiError> parse_page(std::string_view query);

/// One page of a list in the API's envelope: the entries right after `after_id`, right before
/// `before_id`, or from the start; always in the order of `ids`. `entry(i)` is the JSON of the
/// entry whose id is ids[i]. A cursor that is not in the list (its entry was removed between two
/// pages) gives an empty last page, so that a client that follows pages comes to an end.
std::string page_body(std::span<const std::string> ids, const Page& page,
                      const std::function<std::string(std::size_t)>& entry);

std::string model_body(const Model& model);

std::string models_body(std::span<const Model> models, const Page& page);

/// Undoes percent-encoding (`%2F` in model ids). Bad escapes stay as they are.
std::string percent_decoded(std::string_view text);

}  // namespace pensieve::api
