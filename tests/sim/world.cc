#include "sim/world.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <boost/asio/co_spawn.hpp>

#include "sim/flaws.h"

namespace pensieve::sim {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// Within a slice nothing is ordered by time; it is shorter than any wait of the gateway.
constexpr Duration kSlice = milliseconds(10);
/// While nothing but timers can move.
constexpr Duration kLongSlice = milliseconds(50);
/// All ends within this time once trouble is over: kAnswerWait of a load that hangs is the longest
/// wait there is.
constexpr Duration kDrainMax = std::chrono::minutes(15);
constexpr Duration kHangAfter = seconds(5);

memory::Monitor::Options monitor_options() {
  return {};
}

ModelShape draw_shape(Random& random, Bytes total) {
  ModelShape shape;
  const std::uint64_t part = total.count() / 100;
  shape.weights_mapped = Bytes(part * random.between(0, 15));
  shape.weights_copied = Bytes(part * random.between(1, 20));
  shape.kv_per_cell = Bytes(random.between(8, 96) << 10);
  shape.compute = Bytes(random.between(50, 400) << 20);
  shape.context_train_tokens = random.chance(0.5) ? 32768 : 8192;
  shape.load_per_second = Bytes(random.between(200, 4000) << 20);
  shape.step = milliseconds(random.between(5, 60));
  shape.per_token = std::chrono::microseconds(random.between(50, 1500));
  return shape;
}

model::Pool::Options pool_options(std::uint32_t context_tokens, Random& random,
                                  WorkerWorld& workers) {
  model::Pool::Options options;
  options.model.id = "sim";
  options.model.path = "sim";
  options.model.engine = "sim";
  options.context_tokens = context_tokens;
  options.sequences_max = static_cast<std::uint32_t>(random.between(1, 6));
  options.hang_after = kHangAfter;
  options.start_worker = SimWorker::factory(workers);
  return options;
}

gateway::Service::Options service_options(std::uint32_t waiting_max) {
  gateway::Service::Options options;
  options.waiting_max = waiting_max;
  return options;
}

}  // namespace

Weather Weather::draw(Random& random) {
  Weather weather;
  const auto scaled = [&](double most) {
    // Half of the seeds are calm in one respect or another, so that the rest can be seen.
    return random.chance(0.3) ? 0.0 : most * static_cast<double>(random.between(5, 100)) / 100;
  };
  weather.arrival = 0.02 + scaled(0.5);
  weather.hog = scaled(0.03);
  weather.worker_fault = scaled(0.02);
  weather.reading_fault = scaled(0.01);
  weather.group_limit = scaled(0.01);
  weather.rude_client = scaled(0.4);
  return weather;
}

World::World(const Plan& plan)
    : plan_(plan),
      timers_follow_(clock_),
      io_(1),
      work_(io_.get_executor()),
      trace_(clock_),
      random_(plan.seed * 0x2545F4914F6CDD1DU + 1),
      weather_(Weather::draw(random_)),
      machine_(Bytes(random_.between(6, 32) << 30)),
      source_(machine_, clock_),
      workers_{machine_, trace_, random_, draw_shape(random_, machine_.total()), floors_},
      context_tokens_(
          random_.chance(0.5) ? 0 : static_cast<std::uint32_t>(random_.between(1, 64) * 256)),
      monitor_(source_, clock_, monitor_options()),
      governor_({}),
      pool_(io_.get_executor(), clock_, monitor_, ledger_,
            pool_options(context_tokens_, random_, workers_)),
      service_waiting_max_(static_cast<std::uint32_t>(random_.between(1, 24))),
      service_(pool_, monitor_, ledger_, governor_, clock_, service_options(service_waiting_max_),
               [] {}),
      pressure_(governor_, monitor_, pool_, service_, clock_, [] {}) {
  clock_.advance(std::chrono::hours(1));  // A clock at zero would hide what forgets to set a time.
  started_at_ = clock_.now();
  machine_.on_kill = [this](WorkerId id) { on_kernel_kill(id); };
  workers_.true_percent = random_.between(80, 100);
  workers_.load_fails = random_.chance(0.3) ? 0.3 : 0.01;
  workers_.start_fails = random_.chance(0.1) ? 0.3 : 0.0;
  others_target_ = machine_.others();
  plant_flaw();
  monitor_.sample();
  note_memory();
}

World::~World() = default;

void World::step() {
  act();
  std::uint64_t ms = 0;
  if (random_.chance(0.04)) {
    ms = random_.between(100, 1500);
  } else if (random_.chance(0.75)) {
    ms = random_.between(1, 40);
  }
  pass(milliseconds(ms));
  ++steps_;
  check();
}

void World::pass(Duration duration) {
  slice(Duration::zero());
  while (duration > Duration::zero() && !violation_) {
    const Duration part = std::min(duration, is_busy() ? kSlice : kLongSlice);
    slice(part);
    duration -= part;
  }
}

/// One look of everybody at the same moment, after `duration` has passed.
void World::slice(Duration duration) {
  clock_.advance(duration);
  move_machine(duration);
  note_memory();
  if (clock_.now() >= sample_at_) {
    // As Server::sample_memory() does.
    pool_.settle();
    monitor_.set_held(pool_.status().heartbeat.anonymous);
    monitor_.sample();
    pressure_.tick();
    sample_at_ = clock_.now() + monitor_.sample_interval();
  }
  poll();
  // By index: a worker may start another one's end, but none is added while they move.
  for (std::size_t i = 0; i < workers_.alive.size(); ++i) workers_.alive[i]->tick(duration);
  note_memory();  // What workers took for a moment only was seen all the same.
  for (const auto& client : clients_) client->tick();
  poll();
  std::erase_if(workers_.alive, [](const auto& worker) { return worker->gone().has_value(); });
  check_ledger();
  finish_clients();
}

void World::poll() {
  // A handler may post another one; a loop that never ends would be a wait without a bound.
  constexpr std::size_t kHandlersMax = 1'000'000;
  std::size_t handlers = 0;
  for (std::size_t ran = io_.poll(); ran > 0; ran = io_.poll()) {
    handlers += ran;
    PENSIEVE_CHECK(handlers < kHandlersMax);
  }
}

bool World::is_busy() const {
  return !clients_.empty() ||
         std::any_of(workers_.alive.begin(), workers_.alive.end(),
                     [](const auto& worker) { return worker->is_loading() || !worker->lives(); });
}

void World::move_machine(Duration duration) {
  const double passed = std::chrono::duration<double>(duration).count();
  if (machine_.others() != others_target_) {
    const Bytes most(
        static_cast<std::uint64_t>(static_cast<double>(others_per_second_.count()) * passed));
    const Bytes now = machine_.others();
    if (others_target_ > now) {
      machine_.set_others(std::min(others_target_, Bytes(now.count() + most.count())));
      // The kernel has ended them: they do not come again.
      if (machine_.others() < now) others_target_ = machine_.others();
    } else {
      machine_.set_others(std::max(others_target_, saturating_sub(now, most)));
    }
  }
  if (machine_.dirty() > Bytes()) {
    constexpr double kWriteBackPerSecond = 300.0 * (1 << 20);
    const Bytes written(static_cast<std::uint64_t>(kWriteBackPerSecond * passed));
    machine_.set_dirty(saturating_sub(machine_.dirty(), written));
  }
  if (source_.fault != SimMemorySource::Fault::kNone && plan_.flaw == Flaw::kNone &&
      clock_.now() >= reading_heals_at_) {
    source_.fault = SimMemorySource::Fault::kNone;
    trace_.add("readings are good again");
  }
  adjust_for_flaw(plan_.flaw, machine_, floors_, source_);
}

void World::finish_clients() {
  for (const auto& client : clients_) {
    if (client->is_served) check_client(*client);
  }
  std::erase_if(clients_, [](const auto& client) { return client->is_served; });
}

void World::drain() {
  if (violation_) return;
  trace_.add("drain");
  source_.fault = SimMemorySource::Fault::kNone;
  others_target_ = Bytes();
  machine_.set_others(Bytes());
  machine_.set_group_others(Bytes());
  machine_.set_dirty(Bytes());
  machine_.set_group_limit(Bytes());
  const TimePoint bound = clock_.now() + kDrainMax;
  const auto wait_for = [&](const auto& happened) {
    while (!violation_ && !happened() && clock_.now() < bound) pass(milliseconds(50));
  };
  wait_for([&] { return clients_.empty(); });
  if (!clients_.empty()) violate("requests never end, although all trouble is over");
  pool_.shut_down(seconds(2));
  wait_for(
      [&] { return workers_.alive.empty() && pool_.status().state == model::State::kUnloaded; });
  check();
  check_empty();
}

Tally World::tally() const {
  Tally tally = tally_;
  tally.steps = steps_;
  tally.seconds = std::chrono::duration<double>(clock_.now() - started_at_).count();
  tally.workers = workers_.started;
  tally.accepted = workers_.accepted;
  tally.kernel_kills = machine_.kills();
  for (const auto& [end, count] : pool_.status().ends) tally.worker_ends[end] += count;
  return tally;
}

}  // namespace pensieve::sim
