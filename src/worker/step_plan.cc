#include "worker/step_plan.h"

#include <algorithm>
#include <utility>

namespace pensieve::worker {

StepPlan plan_decoding(std::span<Sequence> sequences) {
  StepPlan plan;
  for (Sequence& sequence : sequences) {
    if (!sequence.running || sequence.pending() > 1) continue;
    plan.inputs.push_back({sequence.id, std::span(sequence.running->tokens).last(1), true});
    plan.members.push_back(&sequence);
    ++plan.decoding;
  }
  return plan;
}

void add_prompts(std::span<Sequence> sequences, std::uint32_t budget, StepPlan& plan) {
  std::vector<Sequence*> prompts;
  for (Sequence& sequence : sequences) {
    if (sequence.running && sequence.pending() > 1) prompts.push_back(&sequence);
  }
  if (prompts.empty()) return;
  std::sort(prompts.begin(), prompts.end(), [](const Sequence* a, const Sequence* b) {
    return std::pair(a->pending(), a->running->order) < std::pair(b->pending(), b->running->order);
  });
  Sequence* const oldest = *std::min_element(
      prompts.begin(), prompts.end(),
      [](const Sequence* a, const Sequence* b) { return a->running->order < b->running->order; });
  const std::uint32_t reserved =
      prompts.size() > 1 ? std::min({oldest->pending(), std::max(budget / 2, 1U), budget}) : 0;
  budget -= reserved;
  for (Sequence* sequence : prompts) {
    const std::uint32_t own = sequence == oldest ? reserved : 0;
    const std::uint32_t count = std::min(sequence->pending(), own + budget);
    budget -= count - own;
    if (count == 0) continue;
    const std::span<const engine::Token> rest =
        std::span(sequence->running->tokens).subspan(sequence->held.size());
    plan.inputs.push_back({sequence->id, rest.first(count), count == rest.size()});
    plan.members.push_back(sequence);
  }
}

}  // namespace pensieve::worker
