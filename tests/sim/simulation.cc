#include "sim/simulation.h"

#include <memory>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "sim/world.h"

namespace pensieve::sim {
namespace {

const World* running = nullptr;

}  // namespace

void Tally::add(const Tally& other) {
  steps += other.steps;
  seconds += other.seconds;
  for (const auto& [ending, count] : other.endings) endings[ending] += count;
  for (const auto& [end, count] : other.worker_ends) worker_ends[end] += count;
  workers += other.workers;
  accepted += other.accepted;
  refused_at_door += other.refused_at_door;
  kernel_kills += other.kernel_kills;
}

Outcome simulate(const Plan& plan) {
  // A world that stopped in mid-air has coroutines that nobody may resume or destroy any more.
  static auto& kept = *new std::vector<std::unique_ptr<World>>;
  auto world = std::make_unique<World>(plan);
  running = world.get();
  while (world->steps() < plan.steps && !world->violation()) world->step();
  world->drain();
  running = nullptr;
  Outcome outcome{world->hash(), world->violation(), world->tally()};
  if (outcome.violation) {
    world->stop_time();
    kept.push_back(std::move(world));
  }
  return outcome;
}

std::string whereabouts() {
  if (running == nullptr) return "";
  return fmt::format("step {}, after these events:\n{}", running->steps(), running->last_events());
}

}  // namespace pensieve::sim
