// How many prompt tokens go into one step, so that nobody waits long for a step to end.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace pensieve::worker {

/// Follows the measured speed: a step with prompt tokens aims at a given duration, a short one
/// while others are decoding (it is the gap in their streams), a longer one while nobody is.
///
/// Pure arithmetic on durations that the caller measured. Not thread-safe.
class ChunkSize {
 public:
  /// Choice: an attentive reader notices a gap from about 200 ms on; prompts lose about 10 % of
  /// their speed at 64 tokens a step against 512 on two cores.
  static constexpr Duration kTargetAmongOthers = std::chrono::milliseconds(120);
  /// Choice: how long a cancel, a new request or a token of a request that joins may wait.
  static constexpr Duration kTargetAlone = std::chrono::milliseconds(750);
  static constexpr std::uint32_t kTokensMin = 16;

  explicit ChunkSize(std::uint32_t tokens_max) : tokens_max_(std::max(tokens_max, kTokensMin)) {}

  std::uint32_t tokens(bool others_decode) const {
    if (tokens_per_second_ <= 0) return std::min<std::uint32_t>(kTokensUnmeasured, tokens_max_);
    const Duration target = others_decode ? kTargetAmongOthers : kTargetAlone;
    const double wanted = tokens_per_second_ * std::chrono::duration<double>(target).count();
    const auto bounded = static_cast<std::uint32_t>(
        std::clamp(wanted, double{kTokensMin}, static_cast<double>(tokens_max_)));
    // Multiples of 8: the shapes that the engine's matrix kernels like.
    return std::max(bounded / 8 * 8, kTokensMin);
  }

  /// A step with `prompt_tokens` of prompts took `took`. Small chunks say little and are ignored.
  void observe(std::uint32_t prompt_tokens, Duration took) {
    const double seconds = std::chrono::duration<double>(took).count();
    if (prompt_tokens < kTokensMin || seconds <= 0) return;
    const double measured = static_cast<double>(prompt_tokens) / seconds;
    // Slower counts at once, faster only by and by: a gap is worse than a smaller chunk.
    tokens_per_second_ = tokens_per_second_ <= 0 || measured < tokens_per_second_
                             ? measured
                             : tokens_per_second_ + (measured - tokens_per_second_) / 4;
  }

 private:
  static constexpr std::uint32_t kTokensUnmeasured = 64;

  std::uint32_t tokens_max_;
  double tokens_per_second_ = 0;
};

}  // namespace pensieve::worker
