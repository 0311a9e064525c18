#include "model/scaling.h"

#include <algorithm>

namespace pensieve::model {
namespace {

using memory::Rung;

Bytes rounded_down(Bytes bytes) {
  return Bytes(bytes.count() / kParkedStep.count() * kParkedStep.count());
}

Bytes parked_at(Rung rung, const ScalingMost& most, Bytes parked_now, Bytes spare) {
  if (rung >= Rung::kSpillCaches) return Bytes();
  if (rung >= Rung::kHoldCaches) return std::min(parked_now, most.parked);
  const std::optional<Bytes> all = checked_add(parked_now, spare);
  if (!all) return std::min(parked_now, most.parked);
  return std::min(rounded_down(Bytes(all->count() / 2)), most.parked);
}

}  // namespace

worker::Limits limits_at(Rung rung, const ScalingMost& most, Bytes parked_now, Bytes spare) {
  worker::Limits limits;
  limits.sequences_max = most.sequences;
  limits.step_tokens_max = most.step_tokens;
  if (rung >= Rung::kSmallSteps) {
    limits.sequences_max = std::max(1U, most.sequences / 2);
    limits.step_tokens_max =
        std::max(std::min(kStepTokensLeast, most.step_tokens), most.step_tokens / 4);
  }
  if (rung >= Rung::kRefuse) {
    limits.sequences_max = 1;
    limits.step_tokens_max = std::min(kStepTokensLeast, most.step_tokens);
  }
  limits.caches_grow = rung < Rung::kHoldCaches;
  limits.parked_bytes_max = parked_at(rung, most, parked_now, spare);
  limits.stored_bytes_max = most.stored;
  return limits;
}

}  // namespace pensieve::model
