// Follows one answer through its shape: what may come next, token by token.
#pragma once

#include <span>

#include "engine/engine.h"

namespace pensieve::engine {

/// Thread-safety: one thread.
class ShapeFollower {
 public:
  virtual ~ShapeFollower() = default;

  /// Sets the logits of all tokens that may not come next to minus infinity. At least one token
  /// stays. REQUIRES: one logit per token of the vocabulary, not finished().
  virtual void mask(std::span<float> logits) = 0;

  /// The answer goes on with `token`. False where the shape does not allow it, and nothing has
  /// changed then.
  virtual bool accept(Token token) = 0;

  /// A token that ends generation was accepted.
  virtual bool finished() const = 0;
};

}  // namespace pensieve::engine
