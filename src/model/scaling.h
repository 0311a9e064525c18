// How much a worker may use at each step of the memory ladder: parallel sequences, prompt chunk,
// cache budgets. Pure; model/pool sends the answer to the worker and keeps the ledger in step.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "memory/governor.h"
#include "worker/messages.h"

namespace pensieve::model {

/// What the user has set: the most that a worker may ever use.
struct ScalingMost {
  std::uint32_t sequences = 4;
  std::uint32_t step_tokens = 512;
  Bytes parked;
  Bytes stored;
};

/// Budgets for parked states move by this much, so that a reading that trembles sends no frames.
/// Choice: about the state of a short conversation with a small model.
inline constexpr Bytes kParkedStep = 64_MiB;

/// At least so many prompt tokens in a step, whatever the memory: below it, prefill takes longer
/// than the pressure lasts. Choice.
inline constexpr std::uint32_t kStepTokensLeast = 32;

/// What the worker may use now. Follows the rung both ways; nothing of it drops a request.
///
/// - Sequences: all up to `hold_caches`; half of them from `small_steps` on, so that fewer answers
///   grow at once; one from `refuse` on.
/// - Prompt tokens in a step: all; a quarter from `small_steps` on; kStepTokensLeast from `refuse`
///   on, so that what runs takes memory slowly enough to be seen.
/// - Parked states: at `none`, half of what could be promised above the caution floor (`spare`,
///   with what is promised for them now), so that two halves never meet; at `hold_caches` as much
///   as is promised now, and no more; none from `spill_caches` on, and at `small_steps` no more.
/// - Stored states: as the user has set; a disk is not memory.
worker::Limits limits_at(memory::Rung rung, const ScalingMost& most, Bytes parked_now, Bytes spare);

}  // namespace pensieve::model
