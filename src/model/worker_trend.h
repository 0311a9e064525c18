// What a worker's heartbeats say over time: whether it leaks, and what its requests will still
// take.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/forecast.h"
#include "memory/leak_detector.h"
#include "memory/rate_window.h"
#include "worker/messages.h"

namespace pensieve::model {

/// Of one worker; a new one gets a new object. Pure: heartbeats and time come in.
///
/// Thread-safety: one thread at a time.
class WorkerTrend {
 public:
  /// What heartbeats do not tell.
  struct Facts {
    Bytes kv_per_cell;
    Bytes promised;                    // To the worker for all but cells and parked states.
    std::uint32_t cells_max = 0;       // The most that there may ever be.
    std::uint64_t requests_ended = 0;  // Since the worker was ready; does not fall.
  };

  /// REQUIRES: `now` is not before the `now` of the previous call.
  void observe(const worker::Heartbeat& heartbeat, const Facts& facts, TimePoint now);

  /// Memory that grew with the requests beyond what was promised to the worker. What it fills up
  /// before (its heap, compiled grammars) nobody else was given.
  const std::optional<memory::LeakDetector::Leak>& leak() const { return detector_.leak(); }

  /// What running requests may still take: the cells that the cache has not grown to, at the pace
  /// at which cells are being filled. Nothing where nobody runs.
  const memory::Owed& owed() const { return owed_; }

 private:
  memory::LeakDetector detector_;
  std::uint64_t within_until_ = 0;  // Requests that had ended when all was within what is promised.
  memory::RateWindow cells_used_{std::chrono::seconds(10)};
  memory::Owed owed_;
};

}  // namespace pensieve::model
