// The simulated world: gateway, machine, workers and clients, and how time passes in it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include "base/clock.h"
#include "base/testing/fake_clock.h"
#include "gateway/pressure_control.h"
#include "gateway/service.h"
#include "memory/governor.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "model/pool.h"
#include "sim/client.h"
#include "sim/machine.h"
#include "sim/random.h"
#include "sim/simulation.h"
#include "sim/trace.h"
#include "sim/worker.h"

namespace pensieve::sim {

/// What a seed is like: how often what happens. Probabilities are per step.
struct Weather {
  double arrival = 0.3;
  double hog = 0.01;
  double worker_fault = 0.004;
  double reading_fault = 0.002;
  double group_limit = 0.002;
  double rude_client = 0.1;  // Of the clients.

  static Weather draw(Random& random);
};

/// Everything that one seed needs, wired as gateway/server.cc wires it.
///
/// Thread-safety: one thread, whose timers follow its clock as long as it lives.
class World {
 public:
  explicit World(const Plan& plan);
  ~World();

  /// One random act, a stretch of time, and the invariants after it.
  void step();
  /// No more load and no more trouble: all has to end, and nothing may be left.
  void drain();

  /// Nothing moves in this world any more; another one may be simulated on this thread.
  void stop_time() { timers_follow_.reset(); }

  /// The first invariant that did not hold.
  const std::optional<Violation>& violation() const { return violation_; }
  std::uint64_t hash() const { return trace_.hash(); }
  std::uint64_t steps() const { return steps_; }
  std::string last_events() const { return trace_.last(); }
  Tally tally() const;

 private:
  // What happens: acts.cc.
  void act();
  void arrive();
  void send(Manner manner);
  Manner draw_manner();
  void move_others();
  void move_group();
  void break_reading();
  void break_worker();

  // How time passes: world.cc.
  void pass(Duration duration);
  void slice(Duration duration);
  void move_machine(Duration duration);
  void poll();
  void finish_clients();
  bool is_busy() const;
  void plant_flaw();

  // What must hold: invariants.cc.
  void check();
  void check_ledger();
  void check_door(const SimClient& client, bool had_to_refuse, bool had_to_admit);
  void check_workers();
  void check_bounds();
  void check_wedge();
  void check_client(SimClient& client);
  void on_kernel_kill(WorkerId id);
  void check_empty();
  void note_memory();
  bool is_readable() const;
  bool has_to_refuse() const;
  bool has_to_admit() const;
  Bytes smallest_load() const;
  void violate(std::string invariant);

  const Plan plan_;
  FakeClock clock_;
  std::optional<ScopedTimerClock> timers_follow_;
  boost::asio::io_context io_;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_;
  Trace trace_;
  Random random_;
  const Weather weather_;
  const memory::Floors floors_;
  Machine machine_;
  SimMemorySource source_;
  WorkerWorld workers_;

  const std::uint32_t context_tokens_;  // Of the pool's options.
  memory::Monitor monitor_;
  memory::Ledger ledger_;
  std::vector<memory::Reservation> leaked_;  // By a planted flaw.
  memory::Governor governor_;
  model::Pool pool_;
  const std::uint32_t service_waiting_max_;
  gateway::Service service_;
  gateway::PressureControl pressure_;
  std::unique_ptr<gateway::RequestSink> flawed_sink_;
  TimePoint sample_at_{};

  std::deque<std::unique_ptr<SimClient>> clients_;
  std::uint64_t next_client_ = 1;
  std::uint64_t steps_ = 0;
  Tally tally_;
  std::optional<Violation> violation_;

  // Others move towards a target.
  Bytes others_target_;
  Bytes others_per_second_;
  TimePoint reading_heals_at_{};

  // What the invariants remember.
  TimePoint started_at_{};
  std::optional<TimePoint> short_since_;  // Below the critical floor, and readable.
  std::optional<TimePoint> fine_since_;   // Not below, and readable.
  std::optional<TimePoint> roomy_since_;  // A model would fit.
  std::optional<TimePoint> idle_and_short_since_;
  std::optional<TimePoint> emergency_since_;
  /// What was there, and not there for us, as long as a reading of it counts as fresh.
  struct Moment {
    TimePoint at;
    Bytes available;
    Bytes taken_from_machine;
    Bytes taken_from_group;
  };
  std::deque<Moment> lately_;
  Bytes reserved_before_;
  Bytes machine_at_promise_;  // What was not there for us when memory was last promised.
  Bytes group_at_promise_;
};

}  // namespace pensieve::sim
