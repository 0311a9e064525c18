// What happens to the simulated world: load, bad manners, other programs, faults.
#include <exception>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/co_spawn.hpp>

#include "sim/world.h"

namespace pensieve::sim {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

/// A prompt of so many words; a few heads are shared, so that prefixes are found.
std::string draw_words(Random& random) {
  const std::uint64_t head = random.below(4);
  const std::uint64_t head_words = head * 40;
  std::string words = fmt::format("head{}", head);
  for (std::uint64_t i = 0; i < head_words; ++i) words += fmt::format(" h{}", i);
  const std::uint64_t tail_words =
      random.chance(0.02) ? random.between(500, 5000) : random.between(1, 60);
  for (std::uint64_t i = 0; i < tail_words; ++i) words += fmt::format(" w{}", random.below(1000));
  return words;
}

}  // namespace

void World::act() {
  if (random_.chance(weather_.arrival)) arrive();
  if (random_.chance(weather_.hog)) move_others();
  if (random_.chance(weather_.group_limit)) move_group();
  if (random_.chance(weather_.reading_fault)) break_reading();
  if (random_.chance(weather_.worker_fault)) break_worker();
}

void World::arrive() {
  const std::uint64_t count = random_.chance(0.02) ? random_.between(5, 40) : 1;
  for (std::uint64_t i = 0; i < count && !violation_; ++i) send(draw_manner());
}

Manner World::draw_manner() {
  Manner manner;
  const std::uint64_t kind = random_.below(100);
  manner.ask = kind < 50   ? Ask::kStream
               : kind < 85 ? Ask::kMessage
               : kind < 92 ? Ask::kCount
               : kind < 94 ? Ask::kClear
               : kind < 96 ? Ask::kHealth
               : kind < 97 ? Ask::kMetrics
                           : Ask::kBad;
  manner.words = draw_words(random_);
  manner.output_tokens_max = static_cast<std::uint32_t>(
      random_.chance(0.05) ? random_.between(200, 2000) : random_.between(1, 80));
  if (!random_.chance(weather_.rude_client)) return manner;
  const TimePoint now = clock_.now();
  if (random_.chance(0.5)) {
    manner.hangs_up_at = now + milliseconds(random_.between(0, 5000));
  } else {
    manner.stops_reading_at = now + milliseconds(random_.between(0, 1000));
    manner.reads_again_at = now + milliseconds(random_.between(100, 120'000));
  }
  return manner;
}

void World::send(Manner manner) {
  const bool had_to_refuse = has_to_refuse();
  const bool had_to_admit = has_to_admit();
  clients_.push_back(
      std::make_unique<SimClient>(next_client_++, io_.get_executor(), clock_, std::move(manner)));
  SimClient& client = *clients_.back();
  trace_.add("request", client.id(), static_cast<std::uint64_t>(client.manner().ask));
  gateway::RequestSink& sink =
      flawed_sink_ ? *flawed_sink_ : static_cast<gateway::RequestSink&>(service_);
  if (!client.charge_to(sink)) return;
  asio::co_spawn(io_, sink.serve(client), [this, &client](const std::exception_ptr& error) {
    PENSIEVE_CHECK(!error && !client.is_served);
    client.is_served = true;
  });
  poll();
  check_door(client, had_to_refuse, had_to_admit);
}

void World::move_others() {
  const std::uint64_t total = machine_.total().count();
  const std::uint64_t kind = random_.below(10);
  if (kind < 5) {
    others_target_ = Bytes(total / 100 * random_.between(0, 40));
  } else if (kind < 9) {
    others_target_ = Bytes(total / 100 * random_.between(40, 100));
  } else {
    machine_.set_dirty(Bytes(total / 100 * random_.between(1, 40)));
  }
  others_per_second_ = Bytes(random_.between(50, 8000) << 20);
  trace_.add("others go to MiB", others_target_.count() >> 20, others_per_second_.count() >> 20);
}

void World::move_group() {
  const std::uint64_t total = machine_.total().count();
  const std::uint64_t kind = random_.below(4);
  if (kind == 0) {
    machine_.set_group_limit(Bytes());
    machine_.set_group_others(Bytes());
  } else if (kind == 1) {
    machine_.set_group_others(Bytes(total / 100 * random_.between(0, 30)));
  } else {
    machine_.set_group_limit(Bytes(total / 100 * random_.between(30, 100)));
  }
  trace_.add("group has MiB", machine_.group_limit().count() >> 20,
             machine_.group_others().count() >> 20);
}

void World::break_reading() {
  if (plan_.flaw != Flaw::kNone) return;
  constexpr SimMemorySource::Fault kFaults[] = {SimMemorySource::Fault::kLost,
                                                SimMemorySource::Fault::kNothing,
                                                SimMemorySource::Fault::kTooMuch};
  source_.fault = kFaults[random_.below(3)];
  reading_heals_at_ = clock_.now() + milliseconds(random_.between(10, 8000));
  trace_.add("readings fail", static_cast<std::uint64_t>(source_.fault));
}

void World::break_worker() {
  if (workers_.alive.empty()) return;
  constexpr auto kFaults = static_cast<std::uint64_t>(WorkerFault::kCount);
  workers_.alive.back()->suffer(static_cast<WorkerFault>(random_.below(kFaults)));
}

}  // namespace pensieve::sim
