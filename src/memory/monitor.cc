#include "memory/monitor.h"

#include <algorithm>
#include <utility>

namespace pensieve::memory {
namespace {

bool is_absurd(const Reading& reading) {
  return reading.total == Bytes() || reading.available > reading.total;
}

}  // namespace

Monitor::Monitor(MemorySource& source, const Clock& clock, const Options& options)
    : source_(source), clock_(clock), options_(options), tracker_(options.recovery_hold) {
  PENSIEVE_CHECK(options.floors.ordered());
  PENSIEVE_CHECK(options.stale_after > Duration::zero());
  PENSIEVE_CHECK(options.recovery_hold > Duration::zero());
  PENSIEVE_CHECK(options.fresh_for >= Duration::zero());
}

void Monitor::sample() {
  // Stamped before the read, so that a slow read makes a figure look older, never fresher. Read
  // outside the lock, so that a slow read cannot hold up a request that asks for status().
  const TimePoint taken_at = clock_.now();
  Result<Reading> reading = source_.read();
  if (reading && is_absurd(*reading)) {
    reading = fail(Code::kUnavailable, "absurd memory reading: more available than there is");
  }

  const std::lock_guard lock(mutex_);
  last_attempt_ = taken_at;
  if (!reading) {
    ++failed_reads_;
    last_failure_ = std::move(reading.error().message);
    tracker_.observe_unknown();
    return;  // The last good reading goes on ageing; status() decides when it is too old.
  }
  last_failure_.clear();
  tracker_.observe(level_for(reading->available, options_.floors), taken_at);
  last_good_ = Sample{std::move(*reading), taken_at};
}

Monitor::Status Monitor::check() {
  if (!attempted_lately()) sample();
  return status();
}

Monitor::Status Monitor::status() const {
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  Status status;
  status.failed_reads = failed_reads_;
  status.last_failure = last_failure_;
  // A reading taken while we waited for the lock is newer than `now`: a negative age is fresh.
  const bool known = last_good_ && now - last_good_->taken_at <= options_.stale_after;
  if (!known) {
    status.level = std::max(tracker_.level(), kLevelWhenUnknown);
    return status;
  }
  const Reading& reading = last_good_->reading;
  status.level = tracker_.level();
  status.recovering = level_for(reading.available, options_.floors) < status.level;
  status.available = reading.available;
  status.total = reading.total;
  status.limited_by = reading.limited_by;
  return status;
}

bool Monitor::attempted_lately() const {
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  return last_attempt_ && now - *last_attempt_ <= options_.fresh_for;
}

}  // namespace pensieve::memory
