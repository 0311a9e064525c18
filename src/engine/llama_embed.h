// Which GGUF models give embeddings, and what the context of one has to be like.
#pragma once

#include <cstdint>
#include <optional>

#include <llama.h>

#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::engine {

/// Most tokens of one input where the model looks at all of it at once: its graph is as large as
/// the input, and llama.cpp keeps a row of logits for each token, which nobody reads: 2 GB with a
/// vocabulary of 250,000. Choice: four times what llama-server takes unless it is told otherwise.
inline constexpr std::uint32_t kWholeInputTokensMax = 2048;
/// The same where the input is computed in steps, and what bounds it is the KV cache: what clients
/// of OpenAI's models cut their texts to.
inline constexpr std::uint32_t kSteppedInputTokensMax = 8192;

/// How a model makes one vector of a text.
struct EmbeddingKind {
  enum llama_pooling_type pooling = LLAMA_POOLING_TYPE_MEAN;
  bool whole = true;  // Each token sees all others, so that an input is one step.
};

/// Empty: the model generates text. Errors: kInvalidArgument where it does neither, because it
/// gives a score (reranking).
Result<std::optional<EmbeddingKind>> embedding_kind(const llama_model* model);

/// What a context for one input after the other needs: a window within the bounds above, as many
/// cells, and steps that are large enough.
LoadOptions embedding_options(LoadOptions options, const EmbeddingKind& kind,
                              std::uint32_t context_train_tokens);

}  // namespace pensieve::engine
