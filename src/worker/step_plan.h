// Who takes part in the next step, and with how many tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "worker/sequences.h"

namespace pensieve::worker {

/// The inputs of a step and, at the same index, whose they are. They point into the requests'
/// tokens, which must not grow before the step.
struct StepPlan {
  std::vector<engine::StepInput> inputs;
  std::vector<Sequence*> members;
  std::uint32_t decoding = 0;  // Inputs of one token that samples; they come first.
};

/// The picture that the oldest request has reached whose next token begins one; nothing where none
/// has. A picture is a step of its own, and whole.
StepPlan plan_image(std::span<Sequence> sequences);

/// One token of each request that decodes.
StepPlan plan_decoding(std::span<Sequence> sequences);

/// Adds prompts up to their next picture, with at most `budget` tokens together. Does nothing with
/// a budget of 0.
///
/// The oldest prompt gets half of each step, so that it always gets on; the rest goes to the
/// shortest first, so that a short question does not wait for a long document.
void add_prompts(std::span<Sequence> sequences, std::uint32_t budget, StepPlan& plan);

}  // namespace pensieve::worker
