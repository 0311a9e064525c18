#include "worker/step_plan.h"

#include <algorithm>
#include <utility>

namespace pensieve::worker {

namespace {

std::span<const engine::Token> rest_of(const Sequence& sequence) {
  return std::span(sequence.running->tokens).subspan(sequence.held.size());
}

bool is_at_image(const Sequence& sequence) {
  return engine::is_image(rest_of(sequence).front());
}

/// The tokens up to the next picture, or the picture that they begin with.
std::span<const engine::Token> first_run(std::span<const engine::Token> tokens) {
  std::size_t count = 1;
  while (count < tokens.size() && !engine::starts_image(tokens[count]) &&
         engine::is_image(tokens[count]) == engine::is_image(tokens[0])) {
    ++count;
  }
  return tokens.first(count);
}

}  // namespace

StepPlan plan_image(std::span<Sequence> sequences) {
  StepPlan plan;
  Sequence* oldest = nullptr;
  for (Sequence& sequence : sequences) {
    if (!sequence.running || !is_at_image(sequence)) continue;
    if (oldest == nullptr || sequence.running->order < oldest->running->order) oldest = &sequence;
  }
  if (oldest == nullptr) return plan;
  const std::span<const engine::Token> rest = rest_of(*oldest);
  const std::span<const engine::Token> image = first_run(rest);
  plan.inputs.push_back({oldest->id, image, image.size() == rest.size()});
  plan.members.push_back(oldest);
  return plan;
}

StepPlan plan_decoding(std::span<Sequence> sequences) {
  StepPlan plan;
  for (Sequence& sequence : sequences) {
    if (!sequence.running || sequence.pending() > 1 || is_at_image(sequence)) continue;
    plan.inputs.push_back({sequence.id, std::span(sequence.running->tokens).last(1), true});
    plan.members.push_back(&sequence);
    ++plan.decoding;
  }
  return plan;
}

void add_prompts(std::span<Sequence> sequences, std::uint32_t budget, StepPlan& plan) {
  std::vector<Sequence*> prompts;
  for (Sequence& sequence : sequences) {
    if (!sequence.running || sequence.pending() <= 1 || is_at_image(sequence)) continue;
    prompts.push_back(&sequence);
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
    const std::span<const engine::Token> rest = rest_of(*sequence);
    const auto run = static_cast<std::uint32_t>(first_run(rest).size());
    const std::uint32_t count = std::min(run, own + budget);
    budget -= count > own ? count - own : 0;
    if (count == 0) continue;
    plan.inputs.push_back({sequence->id, rest.first(count), count == rest.size()});
    plan.members.push_back(sequence);
  }
}

}  // namespace pensieve::worker
