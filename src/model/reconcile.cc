#include "model/reconcile.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "memory/report.h"

namespace pensieve::model {

std::string_view name(Drift drift) {
  switch (drift) {
    case Drift::kUnknown:
      return "unknown";
    case Drift::kWithin:
      return "within";
    case Drift::kAbove:
      return "above";
    case Drift::kBelow:
      return "below";
  }
  return "unknown";
}

engine::MemoryEstimate Reconciler::correct(const engine::MemoryEstimate& estimate) {
  const std::optional<Experience> experience = book_.find(key_);
  if (!experience) {
    status_.raised = status_.lowered = Bytes();
    return estimate;
  }
  const engine::MemoryEstimate better = corrected(estimate, *experience);
  status_.raised = saturating_sub(better.anonymous(), estimate.anonymous());
  status_.lowered = saturating_sub(estimate.anonymous(), better.anonymous());
  return better;
}

void Reconciler::doubt() {
  std::optional<Experience> experience = book_.find(key_);
  if (!experience) return;
  experience->above = Bytes(experience->above.count() / 2);
  book_.remember(key_, *experience);
}

void Reconciler::begin(std::string worker, Bytes mapped) {
  end();
  worker_ = std::move(worker);
  mapped_ = mapped;
  begun_ = true;
  if (status_.raised > Bytes()) {
    log::info("{}: the estimate was raised by {}GB, which earlier runs took above it", worker_,
              memory::gb_text(status_.raised));
  } else if (status_.lowered > Bytes()) {
    log::info("{}: the estimate was lowered by {}GB, which earlier runs never took", worker_,
              memory::gb_text(status_.lowered));
  }
}

void Reconciler::tick(memory::Reservation& reservation, const Measured& measured) {
  PENSIEVE_CHECK(begun_);
  if (measured.anonymous == Bytes()) return;  // Not known is not nothing.
  status_.reserved = saturating_sub(reservation.held(), mapped_);
  status_.measured = measured.anonymous;
  reservation.settle(std::min(measured.anonymous, status_.reserved));
  book_excess(saturating_sub(measured.anonymous, status_.reserved));
  note_peak(measured);
  enter(judged(measured));
}

void Reconciler::book_excess(Bytes excess) {
  if (excess == status_.excess) return;
  excess_.reset();
  status_.excess = excess;
  if (excess == Bytes()) return;
  excess_ = ledger_.book(excess);
  excess_->settle(excess);
}

void Reconciler::note_peak(const Measured& measured) {
  // The plan is what would have been reserved without the book.
  const Bytes planned(saturating_sub(status_.reserved, status_.raised).count() +
                      status_.lowered.count());
  if (measured.anonymous > run_.peak) {
    run_.peak = measured.anonymous;
    run_.planned = planned;
  }
  run_.resident_peak = std::max(run_.resident_peak, measured.resident);
  run_.above = std::max(run_.above, saturating_sub(measured.anonymous, planned));
  const std::uint64_t used = measured.used_cells;
  if (measured.cells > 0 && used * 10 >= std::uint64_t{measured.cells} * 9) run_.was_full = true;
  if (run_.above > Bytes(remembered_above_.count() + kDriftAboveMax.count())) {
    // In case the gateway does not live to see this worker's end. Not counted as a run yet.
    Experience experience = book_.find(key_).value_or(Experience());
    experience.above = std::max(experience.above, run_.above);
    experience.last = run_;
    book_.remember(key_, experience);
    remembered_above_ = run_.above;
  }
}

Drift Reconciler::judged(const Measured& measured) const {
  // Left only when nothing is above any more, so that a heap at the bound is told of once.
  const Bytes bound = status_.drift == Drift::kAbove ? Bytes() : kDriftAboveMax;
  if (status_.excess > bound) return Drift::kAbove;
  const Bytes quarter(status_.reserved.count() / 4);
  if (run_.was_full && measured.anonymous < quarter) return Drift::kBelow;
  return Drift::kWithin;
}

void Reconciler::enter(Drift drift) {
  if (drift == status_.drift) return;
  const Drift before = std::exchange(status_.drift, drift);
  const std::string measured = memory::gb_text(status_.measured);
  const std::string reserved = memory::gb_text(status_.reserved);
  if (drift == Drift::kAbove) {
    ++status_.drifts;
    log::warning("{} holds {}GB, more than the {}GB reserved for it; the rest is promised as well",
                 worker_, measured, reserved);
  } else if (drift == Drift::kBelow) {
    ++status_.drifts;
    log::info("{} holds {}GB with a full KV cache, far below the {}GB reserved for it", worker_,
              measured, reserved);
  } else if (before != Drift::kUnknown) {
    log::info("{} holds {}GB, within the {}GB reserved for it again", worker_, measured, reserved);
  }
}

void Reconciler::end() {
  if (begun_ && run_.peak > Bytes()) {
    book_.remember(key_, learned(book_.find(key_), run_));
  }
  excess_.reset();
  begun_ = false;
  run_ = {};
  remembered_above_ = Bytes();
  Status left;
  left.drifts = status_.drifts;
  left.raised = status_.raised;
  left.lowered = status_.lowered;
  status_ = left;
}

}  // namespace pensieve::model
