// Does what the governor orders: to the worker through the pool, to clients through the service.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.h"
#include "gateway/service.h"
#include "memory/governor.h"
#include "memory/monitor.h"
#include "model/pool.h"

namespace pensieve::gateway {

/// Between the ladder, which decides, and those who can free memory. Each step looks at the
/// situation once, logs a move on the ladder in one line, and obeys.
///
/// Ownership: borrows all; all must outlive it. Thread-safety: the io thread only.
class PressureControl {
 public:
  /// `stop_server` is called once, where the user has chosen that an Emergency that lasts stops
  /// the server.
  PressureControl(memory::Governor& governor, memory::Monitor& monitor, model::Pool& pool,
                  Service& service, const Clock& clock, std::function<void()> stop_server);

  /// Called after each sample of the monitor. Never blocks.
  void tick();

 private:
  memory::Situation look();
  void obey(const memory::Orders& orders, const memory::Situation& situation);
  void end_newest(const memory::Situation& situation);

  memory::Governor& governor_;
  memory::Monitor& monitor_;
  model::Pool& pool_;
  Service& service_;
  const Clock& clock_;
  std::function<void()> stop_server_;
  std::uint64_t refusals_seen_ = 0;
};

}  // namespace pensieve::gateway
