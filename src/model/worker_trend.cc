#include "model/worker_trend.h"

namespace pensieve::model {
namespace {

/// A cache of more than 16 EiB is not one; what a worker says is not trusted to be sensible.
Bytes bytes_of(std::uint64_t cells, Bytes per_cell) {
  if (per_cell.count() != 0 && cells > UINT64_MAX / per_cell.count()) return Bytes(UINT64_MAX);
  return Bytes(cells * per_cell.count());
}

}  // namespace

void WorkerTrend::observe(const worker::Heartbeat& heartbeat, const Facts& facts, TimePoint now) {
  const Bytes cells = bytes_of(heartbeat.cells, facts.kv_per_cell);
  const Bytes rest =
      saturating_sub(saturating_sub(heartbeat.anonymous, cells), heartbeat.parked_bytes);
  // Looked at only from there on: the requests before would make a leak look like a flat one.
  if (rest <= facts.promised && !detector_.leak()) {
    detector_ = {};
    within_until_ = facts.requests_ended;
  }
  detector_.observe(saturating_sub(rest, facts.promised), Bytes(),
                    facts.requests_ended - within_until_);

  cells_used_.add(heartbeat.cells_used, now);
  const std::optional<double> pace = cells_used_.per_second();
  owed_ = {};
  if (heartbeat.running == 0 || heartbeat.cells >= facts.cells_max) return;
  owed_.left = bytes_of(facts.cells_max - heartbeat.cells, facts.kv_per_cell);
  if (pace) owed_.bytes_per_second = *pace * static_cast<double>(facts.kv_per_cell.count());
}

}  // namespace pensieve::model
