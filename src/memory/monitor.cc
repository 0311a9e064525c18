#include "memory/monitor.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "memory/report.h"

namespace pensieve::memory {
namespace {

bool is_absurd(const Reading& reading) {
  return reading.total == Bytes() || reading.available > reading.total;
}

}  // namespace

Monitor::Monitor(MemorySource& source, SignalSource* signals, const Clock& clock,
                 const Options& options)
    : source_(source),
      signal_source_(signals),
      clock_(clock),
      options_(options),
      tracker_(options.recovery_hold),
      forecaster_(options.floors) {
  PENSIEVE_CHECK(options.floors.ordered());
  PENSIEVE_CHECK(options.stale_after > Duration::zero());
  PENSIEVE_CHECK(options.recovery_hold > Duration::zero());
  PENSIEVE_CHECK(options.fresh_for >= Duration::zero());
}

void Monitor::sample() {
  read_signals_if_due();
  take_reading();
}

void Monitor::read_signals_if_due() {
  if (signal_source_ == nullptr) return;
  const TimePoint now = clock_.now();
  {
    const std::lock_guard lock(mutex_);
    if (signals_at_ && now - *signals_at_ < kSignalsEvery) return;
  }
  const RawSignals raw = signal_source_->read();
  const std::lock_guard lock(mutex_);
  signals_at_ = now;
  signal_tracker_.observe(raw, now);
}

/// Before the first look at the signals there is none to judge by; sample() takes it at start.
/// One that is too old counts as unreadable, like a reading that is.
Worsened Monitor::judge(const Reading& reading, TimePoint now) const {
  const Level measured = level_for(reading.available, options_.floors);
  if (!signals_at_) return {measured, ""};
  const bool machine_limits = reading.limited_by == kMachineMeter;
  if (now - *signals_at_ <= options_.stale_after) {
    return worsen(measured, signal_tracker_.signals(), machine_limits);
  }
  return worsen(measured, signal_tracker_.outdated(), machine_limits);
}

void Monitor::take_reading() {
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
    history_.record(std::nullopt, tracker_.level(), held_, taken_at);
    return;  // The last good reading goes on ageing; status() decides when it is too old.
  }
  last_failure_.clear();
  judged_ = judge(*reading, taken_at);
  tracker_.observe(judged_.level, taken_at);
  forecaster_.observe(reading->available, taken_at);
  history_.record(reading->available, tracker_.level(), held_, taken_at);
  last_good_ = Sample{std::move(*reading), taken_at};
}

Monitor::Status Monitor::check() {
  if (!attempted_lately()) take_reading();
  return status();
}

Monitor::Status Monitor::status() const {
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  Status status;
  status.failed_reads = failed_reads_;
  status.last_failure = last_failure_;
  if (signals_at_) {
    const bool outdated = now - *signals_at_ > options_.stale_after;
    status.signals = outdated ? signal_tracker_.outdated() : signal_tracker_.signals();
  }
  status.floors = options_.floors;
  // A reading taken while we waited for the lock is newer than `now`: a negative age is fresh.
  const bool known = last_good_ && now - last_good_->taken_at <= options_.stale_after;
  if (!known) {
    status.level = std::max(tracker_.level(), kLevelWhenUnknown);
    return status;
  }
  const Reading& reading = last_good_->reading;
  status.level = tracker_.level();
  status.recovering = judged_.level < status.level;
  status.measured = level_for(reading.available, options_.floors);
  status.worsened_by = judged_.by;
  status.available = reading.available;
  status.total = reading.total;
  status.limited_by = reading.limited_by;
  return status;
}

Forecast Monitor::forecast() const {
  const std::lock_guard lock(mutex_);
  return forecaster_.forecast();
}

void Monitor::set_owed(const Owed& owed) {
  const std::lock_guard lock(mutex_);
  forecaster_.set_owed(owed);
}

Duration Monitor::sample_interval() const {
  const std::lock_guard lock(mutex_);
  if (!last_good_) return kSampleEveryLeast;
  const Bytes available = last_good_->reading.available;
  Bytes distance;  // To the next floor where something has to be done at once.
  for (const Bytes floor : {options_.floors.critical, options_.floors.emergency}) {
    if (available < floor) continue;
    distance = saturating_sub(available, floor);
    break;
  }
  const double seconds = to_gb(distance) / to_gb(kFastestTaker);
  const auto to_reach_it =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  return std::min(kSampleEveryLeast + to_reach_it, kSampleEvery);
}

bool Monitor::attempted_lately() const {
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  return last_attempt_ && now - *last_attempt_ <= options_.fresh_for;
}

std::string describe(const Monitor::Status& status) {
  const std::string available =
      status.available && status.total
          ? fmt::format("{}GB of {}GB available, limited by {}", gb_text(*status.available),
                        gb_text(*status.total), status.limited_by)
          : fmt::format("available memory unknown ({})", status.last_failure);
  return fmt::format("{}; level {}{}{}{}; critical floor {}GB, emergency {}GB; {}", available,
                     name(status.level), status.recovering ? ", held until recovery is sure" : "",
                     status.worsened_by.empty() ? "" : ", worsened: ", status.worsened_by,
                     gb_text(status.floors.critical), gb_text(status.floors.emergency),
                     status.signals ? describe(*status.signals) : "no signals are looked at");
}

}  // namespace pensieve::memory
