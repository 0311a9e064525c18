// One seed of the simulated gateway: production Service, MessageRelay, Pool, Link, BatchLoop,
// Monitor, Ledger and Governor on a fake clock, under random load and faults, with invariants after
// each step (docs/design/simulation.md).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "sim/client.h"
#include "worker/worker_end.h"

namespace pensieve::sim {

/// Bugs that are planted by the simulation itself, to prove that it finds them.
enum class Flaw : std::uint8_t {
  kNone,
  kAdmitsAtCritical,  // Memory below the critical floor reads as plenty.
  kStaysCritical,     // Memory that comes back is never seen.
  kLeaksReservation,  // A worker's end gives back less than was promised to it.
  kForgetsEnds,       // Some ends of workers are never told.
  kDropsRequests,     // Some requests are never answered.
  kAnswersTwice,      // Some requests get two answers.
  kMixesAnswers,      // Some text goes to the wrong request.
  kCount,
};
std::string_view name(Flaw flaw);  // "admits-at-critical", ...
std::optional<Flaw> flaw_named(std::string_view name);

struct Plan {
  std::uint64_t seed = 1;
  std::uint64_t steps = 10'000;
  Flaw flaw = Flaw::kNone;
};

struct Violation {
  std::uint64_t step = 0;
  std::string invariant;  // What does not hold, in words, with numbers.
  std::string last_events;
};

/// What happened, for the sum over seeds: a simulation in which nothing happens proves nothing.
struct Tally {
  std::uint64_t steps = 0;
  double seconds = 0;  // Of simulated time.
  std::map<Ending, std::uint64_t> endings;
  std::map<worker::WorkerEnd, std::uint64_t> worker_ends;
  std::uint64_t workers = 0;
  std::uint64_t accepted = 0;         // Requests, by workers.
  std::uint64_t refused_at_door = 0;  // For memory, at once.
  std::uint64_t kernel_kills = 0;

  void add(const Tally& other);
};

struct Outcome {
  std::uint64_t hash = 0;  // Of all events.
  std::optional<Violation> violation;
  Tally tally;
};

/// Runs one seed to its end, or to the first violation. The same plan gives the same outcome.
/// After a violation what was simulated is kept for ever, because half of it is in mid-air.
Outcome simulate(const Plan& plan);

/// Where the simulation of this process stands, for the report of a fault (PENSIEVE_CHECK) in it.
std::string whereabouts();

}  // namespace pensieve::sim
