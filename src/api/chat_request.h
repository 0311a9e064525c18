// POST /v1/chat/completions, the request that OpenAI's clients send, to the types of /v1/messages.
#pragma once

#include <expected>
#include <string_view>

#include "api/error.h"
#include "api/messages.h"

namespace pensieve::api {

/// A checked chat request. Its prompt is the one that the same conversation gives on /v1/messages,
/// so both faces share what was computed.
struct ChatRequest {
  MessagesRequest messages;
  bool include_usage = false;  // stream_options.include_usage
};

/// What becomes of a body:
///
///   messages            system and developer messages stay where they stand; tool_calls and tool
///                       messages are calls and their results; image_url with a data: address is an
///                       image, as /v1/messages takes or refuses it; others are refused
///   tools, tool_choice, parallel_tool_calls, response_format, stop, stream, temperature, top_p,
///   seed, top_k         what they say. `stop` may be white space here
///   max_completion_tokens, max_tokens   the first that is there; neither: what the window holds
///   n > 1, logprobs, functions, modalities other than text   refused: an answer without them would
///                       be another than the one that was asked for
///   anything else       ignored
///
/// Errors: 400 that names the field, as it is called here where this parser finds it.
/// `sees` as for parse_messages_request().
std::expected<ChatRequest, ApiError> parse_chat_request(std::string_view body, bool sees = false);

}  // namespace pensieve::api
