// POST /v1/embeddings as OpenAI's clients send it, and the answer as they read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/error.h"
#include "engine/engine.h"

namespace pensieve::api {

/// Inputs of one request, as OpenAI has it.
inline constexpr std::size_t kEmbeddingInputsMax = 2048;
/// Text of all inputs together. Choice: three times the tokens that OpenAI takes, at four bytes.
inline constexpr std::size_t kEmbeddingTextBytesMax = std::size_t{4} << 20;
/// Token ids of all inputs together, as OpenAI has it.
inline constexpr std::size_t kEmbeddingTokensMax = 300'000;

/// One input: a text, or token ids where there are some.
struct EmbeddingInput {
  std::string text;
  std::vector<engine::Token> tokens;  // None is negative.
};

struct EmbeddingsRequest {
  std::string model;
  std::vector<EmbeddingInput> inputs;       // At least one, none of them empty.
  bool base64 = false;                      // The vectors' form in the answer.
  std::optional<std::uint32_t> dimensions;  // What the vectors must have.
};

/// `input` is a string, a list of strings, a list of token ids, or a list of such lists. What is
/// neither named above nor `encoding_format` is accepted and ignored. Errors: 400 that names the
/// field.
std::expected<EmbeddingsRequest, ApiError> parse_embeddings_request(std::string_view body);

/// The answer, written vector by vector: its text is all that is kept of them.
class EmbeddingsAnswer {
 public:
  explicit EmbeddingsAnswer(bool base64) : base64_(base64) {}

  /// The next vector, in the order of the inputs. REQUIRES: its numbers are finite.
  void append(std::span<const float> vector);
  /// Of what was written so far.
  std::size_t bytes() const { return data_.size(); }
  /// The whole body. The object is used up then.
  std::string finish(std::string_view model, std::uint64_t tokens);

 private:
  const bool base64_;
  std::string data_;
  std::uint64_t count_ = 0;
};

}  // namespace pensieve::api
