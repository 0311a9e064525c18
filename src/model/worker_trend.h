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
    std::uint32_t cells_max = 0;       // The most that there may ever be.
    std::uint64_t requests_ended = 0;  // Since the worker was ready; does not fall.
  };

  /// REQUIRES: `now` is not before the `now` of the previous call.
  void observe(const worker::Heartbeat& heartbeat, const Facts& facts, TimePoint now);

  /// Memory that grew with the requests, and that neither KV cells nor parked states explain: both
  /// are known to the ledger.
  const std::optional<memory::LeakDetector::Leak>& leak() const { return detector_.leak(); }

  /// What running requests may still take: the cells that the cache has not grown to, at the pace
  /// at which cells are being filled. Nothing where nobody runs.
  const memory::Owed& owed() const { return owed_; }

 private:
  memory::LeakDetector detector_;
  memory::RateWindow cells_used_{std::chrono::seconds(10)};
  memory::Owed owed_;
};

}  // namespace pensieve::model
