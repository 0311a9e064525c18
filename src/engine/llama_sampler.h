// Picks a token from logits: argmax where greedy, else the usual chain on the few best candidates.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <llama.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/shape_follower.h"

namespace pensieve::engine {

/// What a request leaves unset. A model file may say otherwise (general.sampling.*).
struct SamplingDefaults {
  float temperature = 0.7F;
  float top_p = 0.95F;
  std::int32_t top_k = 40;
  float min_p = 0.05F;

  static SamplingDefaults of(const llama_model* model);
};

/// The state of sampling for one sequence. Order: top_k, top_p, min_p, temperature, draw.
///
/// Thread-safety: one thread.
class LlamaSampler {
 public:
  /// Errors: kInvalidArgument where a value is out of its range (engine.h, Sampling).
  static Result<LlamaSampler> create(const Sampling& sampling, const SamplingDefaults& defaults);

  /// The answer keeps `shape` from now on; it has said `answer` so far. Null: every answer is
  /// right.
  void keep(std::unique_ptr<ShapeFollower> shape, std::span<const Token> answer);

  /// REQUIRES: logits not empty, one per token of the vocabulary. `scratch` is overwritten.
  Token sample(std::span<const float> logits, std::vector<llama_token_data>& scratch);

 private:
  struct Free {
    void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
  };

  Token draw(std::span<const float> logits, std::vector<llama_token_data>& scratch);

  std::size_t top_k_ = 1;
  std::unique_ptr<llama_sampler, Free> chain_;  // Null: greedy.
  std::unique_ptr<ShapeFollower> shape_;
  std::vector<float> masked_;  // Logits without the tokens that the shape forbids.
};

}  // namespace pensieve::engine
