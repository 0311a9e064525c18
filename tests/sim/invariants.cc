// What must hold in the simulated world after every step, judged by the machine itself and not by
// what the gateway believes of it.
#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "sim/world.h"

namespace pensieve::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// The user's promise: accepting again within 2 s of relief.
constexpr Duration kReliefMax = seconds(2);
/// check() may go by a reading that is this old (Monitor::Options::fresh_for), and a slice.
constexpr Duration kReadingAgeMax = milliseconds(25);
/// Monitor::Options::stale_after, and a slice.
constexpr Duration kStaleAfter = milliseconds(3060);
/// What a worker holds before it may load: nobody promises it, the floor has room for it.
constexpr Bytes kBeforeLoad = 64_MiB;

/// Governor::Options::emergency_max, and a sample before and after.
constexpr Duration kDroppedWithin = milliseconds(3600);

bool speaks_of_pressure(const std::string& body) {
  return body.find("memory pressure") != std::string::npos ||
         body.find("cannot read its available memory") != std::string::npos;
}

}  // namespace

void World::violate(std::string invariant) {
  if (violation_) return;
  violation_ = Violation{steps_, std::move(invariant), trace_.last()};
}

/// A planted flaw is no excuse: the gateway could have known.
bool World::is_readable() const {
  return source_.fault == SimMemorySource::Fault::kNone ||
         source_.fault == SimMemorySource::Fault::kLies ||
         source_.fault == SimMemorySource::Fault::kStuck;
}

/// Keeps what the invariants need to know of the past.
void World::note_memory() {
  const TimePoint now = clock_.now();
  const Bytes available = machine_.reading().available;
  lately_.push_back({now, available, machine_.taken_from_machine(), machine_.taken_from_group()});
  while (now - lately_.front().at > kReadingAgeMax) lately_.pop_front();
  const auto since = [&](std::optional<TimePoint>& mark, bool holds) {
    if (!holds) mark.reset();
    if (holds && !mark) mark = now;
  };
  const bool readable = is_readable();
  since(short_since_, readable && available < floors_.critical);
  since(fine_since_, readable && available >= floors_.critical);
  const Bytes needed(smallest_load().count() + floors_.critical.count() + (64U << 20));
  since(roomy_since_, readable && available >= needed && pool_.status().reserved == Bytes());
  const bool idle = clients_.empty() && pool_.status().state == model::State::kReady &&
                    workers_.alive.size() == 1 && workers_.alive.front()->lives() &&
                    !workers_.alive.front()->hangs();
  since(emergency_since_, readable && available < floors_.emergency);
  since(idle_and_short_since_, readable && idle && available < floors_.critical);
}

Bytes World::smallest_load() const {
  engine::LoadOptions options;
  options.context_tokens = context_tokens_ > 0 ? context_tokens_ : model::Pool::kContextTokensLeast;
  return plan_for(workers_.shape, options).estimate.total();
}

bool World::has_to_refuse() const {
  const TimePoint now = clock_.now();
  const bool is_short = short_since_ && now - *short_since_ > kReadingAgeMax;
  const bool is_unknown = !is_readable() && now - source_.good_at() > kStaleAfter;
  return is_short || is_unknown;
}

bool World::has_to_admit() const {
  return fine_since_ && clock_.now() - *fine_since_ > kReliefMax;
}

/// Nothing is admitted when memory is short or unknown, and nothing is turned away when it is not.
void World::check_door(const SimClient& client, bool had_to_refuse, bool had_to_admit) {
  if (!client.wants_model()) return;
  const bool refused = client.status() == 503 && speaks_of_pressure(client.body());
  if (refused) ++tally_.refused_at_door;
  if (had_to_refuse && !refused) {
    violate(fmt::format("request {} was admitted with {} MiB available", client.id(),
                        machine_.reading().available.count() >> 20));
  }
  if (had_to_admit && refused) {
    violate(fmt::format("wedged: request {} was refused 2 s after relief: {}", client.id(),
                        client.body()));
  }
}

void World::check() {
  check_workers();
  check_bounds();
  check_wedge();
}

/// What is newly promised was there to be promised; what is promised is never less than what of it
/// is resident; and without workers and requests nothing is promised.
void World::check_ledger() {
  const Bytes promised = ledger_.promised();
  const Bytes outstanding = ledger_.outstanding();
  if (outstanding > promised) violate("more is outstanding than promised");
  // Requests' buffers are small, have their own rules, and are never settled.
  const Bytes reserved = pool_.status().reserved;
  if (reserved > reserved_before_) {
    trace_.add("promised MiB", reserved.count() >> 20, outstanding.count() >> 20);
    // The copy that a shrinking cache needs for a moment may go below the critical floor.
    const Bytes floor = reserved_before_ == Bytes() ? floors_.critical : floors_.emergency;
    // By the reading that was best for us among those that the promise may go by.
    Bytes best;
    machine_at_promise_ = machine_.taken_from_machine();
    group_at_promise_ = machine_.taken_from_group();
    for (const Moment& moment : lately_) {
      best = std::max(best, moment.available);
      machine_at_promise_ = std::min(machine_at_promise_, moment.taken_from_machine);
      group_at_promise_ = std::min(group_at_promise_, moment.taken_from_group);
    }
    const Bytes unsettled = saturating_sub(outstanding, service_.buffers().held());
    if (unsettled.count() + floor.count() > best.count()) {
      violate(fmt::format("{} MiB are outstanding and only {} MiB were available",
                          unsettled.count() >> 20, best.count() >> 20));
    }
  }
  reserved_before_ = reserved;
  if (workers_.alive.empty() && clients_.empty() && promised > Bytes()) {
    violate(fmt::format("{} bytes are promised to nobody", promised.count()));
  }
}

/// Every worker has had exactly one end, or lives.
void World::check_workers() {
  std::uint64_t ends = 0;
  for (const auto& [end, count] : pool_.status().ends) ends += count;
  const std::uint64_t alive = workers_.alive.size();
  if (ends + alive != workers_.started) {
    violate(fmt::format("{} workers were started, {} live, and {} ends were told", workers_.started,
                        alive, ends));
  }
  if (alive > 1) violate("two workers for one model");
}

void World::check_bounds() {
  constexpr std::uint32_t kWorkerWaitingMax = 256;  // BatchLoop::Options::waiting_max
  if (service_.requests_active() > pool_.sequences_max() + service_waiting_max_) {
    violate("more requests are active than the queue allows");
  }
  for (const auto& worker : workers_.alive) {
    if (worker->waiting() > kWorkerWaitingMax) violate("a worker's queue is too long");
    if (worker->inbox_bytes() > worker::Link::kOutgoingBytesMax) {
      violate("too much waits to be sent to a worker");
    }
  }
}

/// Once memory is back we accept again, and while it is short nothing of ours that serves nobody
/// may be the reason.
void World::check_wedge() {
  const memory::Monitor::Status status = monitor_.status();
  if (has_to_admit() && clock_.now() >= *fine_since_ + kReliefMax + milliseconds(100) &&
      status.level >= memory::Level::kCritical) {
    violate(
        fmt::format("wedged: the level is {} {:.3f} s after relief, with {} MiB available and {} "
                    "as last read",
                    memory::name(status.level),
                    std::chrono::duration<double>(clock_.now() - *fine_since_).count(),
                    machine_.reading().available.count() >> 20,
                    status.available ? status.available->count() >> 20 : 0));
  }
  const TimePoint now = clock_.now();
  if (idle_and_short_since_ && now - *idle_and_short_since_ > kReliefMax) {
    violate(fmt::format("a model that serves nobody holds {} MiB while requests are refused",
                        machine_.workers().count() >> 20));
  }
  if (emergency_since_ && now - *emergency_since_ > kDroppedWithin &&
      machine_.workers() > kBeforeLoad) {
    violate(fmt::format("{} MiB are held {} s into an emergency", machine_.workers().count() >> 20,
                        std::chrono::duration<double>(now - *emergency_since_).count()));
  }
}

void World::check_client(SimClient& client) {
  const std::string wrong = client.judge();
  trace_.add("request has ended", client.id(), static_cast<std::uint64_t>(client.ending()));
  ++tally_.endings[client.ending()];
  if (!wrong.empty()) violate(fmt::format("request {} {}", client.id(), wrong));
  const bool had_room = roomy_since_ && *roomy_since_ + kReliefMax < client.sent_at();
  if (had_room && client.body().find("does not fit") != std::string::npos) {
    violate(fmt::format("wedged: request {} was told that the model does not fit: {}", client.id(),
                        client.body()));
  }
}

/// The guarantee itself: as long as workers keep to what was promised to them and others take no
/// more than the floor that is kept free for them, the kernel never has to kill.
void World::on_kernel_kill(WorkerId id) {
  std::uint64_t held = 0;
  bool leaks = false;
  for (const auto& worker : workers_.alive) {
    if (!worker->lives()) continue;
    held += worker->anonymous().count();
    leaks = leaks || worker->leaks();
  }
  const Bytes taken = std::max(saturating_sub(machine_.taken_from_machine(), machine_at_promise_),
                               saturating_sub(machine_.taken_from_group(), group_at_promise_));
  const bool kept = held <= ledger_.promised().count() + kBeforeLoad.count() && !leaks;
  if (kept && ledger_.promised() > Bytes() &&
      taken.count() + kBeforeLoad.count() * 2 < floors_.critical.count()) {
    violate(
        fmt::format("the kernel had to kill, although workers hold {} of {} MiB and others "
                    "took only {} MiB since",
                    held >> 20, ledger_.promised().count() >> 20, taken.count() >> 20));
  }
  for (const auto& worker : workers_.alive) {
    if (worker->id() == id) worker->die_for_memory();
  }
}

void World::check_empty() {
  if (violation_) return;
  if (!workers_.alive.empty()) violate("a worker does not end when asked");
  if (service_.requests_active() > 0) violate("a request is active that nobody waits for");
  if (ledger_.promised() > Bytes() || ledger_.outstanding() > Bytes()) {
    violate("the ledger is not empty");
  }
  work_.reset();
  poll();
  if (!violation_ && !io_.stopped()) violate("a coroutine never ends");
}

}  // namespace pensieve::sim
