// What the payloads of the frames about embeddings say: one input, and its vector.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::worker {

/// kEmbed. A list of inputs is as many of these, one after the other: so none holds up others for
/// longer than it takes itself, each has its own look at the memory, and a client that hangs up
/// ends the list.
struct EmbedRequest {
  std::string text;                   // Where there are no tokens.
  std::vector<engine::Token> tokens;  // As the client has them; checked by the engine.
};

/// kEmbedded. Not JSON but numbers in little endian: the tokens, then the vector.
struct Embedded {
  std::uint32_t input_tokens = 0;
  std::vector<float> embedding;  // Finite, and at least one.
};

std::string encode(const EmbedRequest& request);
std::string encode(const Embedded& embedded);

// Errors: kInvalidArgument where the payload is not of the expected shape.
Result<EmbedRequest> decode_embed_request(std::string_view payload);
Result<Embedded> decode_embedded(std::string_view payload);

}  // namespace pensieve::worker
