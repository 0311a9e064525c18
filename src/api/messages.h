// The Messages API's requests, from JSON to our types. No sockets, no policy: what is absent or
// unknown is ignored where real clients need that, and refused where silence would lose something.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/error.h"
#include "api/thinking.h"
#include "engine/engine.h"

namespace pensieve::api {

/// A checked `POST /v1/messages` body. The prompt is canonical: string and block spellings of one
/// content give the same messages, neighbours of one role are merged, billing lines are gone.
struct MessagesRequest {
  std::string model;  // As the client wrote it.
  engine::Prompt prompt;
  std::uint32_t output_tokens_max = 0;  // max_tokens; 0: read the prompt. Not yet clamped.
  std::vector<std::string> stop_sequences;
  engine::Sampling sampling;
  ThinkingDisplay thinking_display = ThinkingDisplay::kNone;
  bool stream = false;
  /// What the server was to search the web for; the answer begins with the search that failed.
  std::optional<std::string> failed_search = std::nullopt;
};

struct CountTokensRequest {
  std::string model;
  engine::Prompt prompt;
};

// What a request may say, besides what prompt.h and content.h tell of the messages, tools.h of
// `tools`, `tool_choice` and output formats, and thinking.h of `thinking` and efforts:
//  - Unknown fields are ignored. A null counts as absent where a field may be absent.
//  - `max_tokens`: a whole number; a larger one than fits becomes the largest. With 0 the prompt is
//    read, so that the next request finds it, and nothing is said.
//  - `temperature` in [0, 2]; Anthropic's API ends at 1, other clients do not.
//  - `top_p` in [0, 1]; 0 is the likeliest token alone.
//  - `top_k`: 0 and -1 mean no limit. `seed`, our extension: counts modulo 2^32; -1 means none.
//  - `stop_sequences`: at most 64 of at most 1024 bytes, none of white space only.
//  - `thread`, `mcp_servers` and `container` are refused: they change what the messages mean.

/// Errors: an ApiError that names the field, worded as Anthropic's API does
/// (`messages.0.content: Input should be ...`).
/// `sees`: the model that is meant reads images; else a user's images are refused.
std::expected<MessagesRequest, ApiError> parse_messages_request(std::string_view body,
                                                                bool sees = false);
std::expected<CountTokensRequest, ApiError> parse_count_tokens_request(std::string_view body,
                                                                       bool sees = false);

}  // namespace pensieve::api
