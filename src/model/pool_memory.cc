// What the pool and a living worker say to each other about memory: cells, limits, parked states.
#include <algorithm>
#include <utility>
#include <variant>

#include <fmt/core.h>

#include "base/log.h"
#include "memory/report.h"
#include "model/pool.h"
#include "model/scaling.h"

namespace pensieve::model {

using worker::FrameType;

namespace {

/// After so long a heartbeat is about the limits that were sent. Choice: two heartbeats.
constexpr Duration kHeardAfter = std::chrono::seconds(2);

}  // namespace

Result<void> Pool::on_frame(std::uint64_t generation, const worker::Frame& frame) {
  if (generation != generation_ || !budget_) return {};  // Of a worker that is on its way out.
  switch (frame.type) {
    case FrameType::kNeedCells: {
      const Result<worker::NeedCells> need = worker::decode_need_cells(frame.payload);
      if (!need) return std::unexpected(need.error());
      on_need(*need);
      return {};
    }
    case FrameType::kResized: {
      const Result<worker::Resized> resized = worker::decode_resized(frame.payload);
      if (!resized) return std::unexpected(resized.error());
      on_resized(*resized);
      return {};
    }
    default:
      return fail(Code::kInvalidArgument, "a frame about the worker that nobody asked for");
  }
}

void Pool::on_need(const worker::NeedCells& need) {
  const CellBudget::Answer answer = budget_->grant(need, monitor_.check());
  if (const auto* resize = std::get_if<worker::Resize>(&answer)) {
    // First the promise, then the group's limit, then the worker.
    link_->set_reserved(reserved());
    send(FrameType::kResize, worker::encode(*resize));
    log::info("worker {} gets {} KV cells (has {}, wants {}); {}GB reserved", link_->pid(),
              resize->cells, need.cells_now, need.cells_wanted, memory::gb_text(reserved()));
  } else if (const auto* refused = std::get_if<worker::ResizeRefused>(&answer)) {
    ++refusals_;
    send(FrameType::kResizeRefused, worker::encode(*refused));
    log::warning("worker {} gets no more KV cells (has {}, wants {}): {}", link_->pid(),
                 need.cells_now, need.cells_wanted, refused->reason);
  }
}

void Pool::on_resized(const worker::Resized& resized) {
  const std::uint32_t before = budget_->cells();
  budget_->resized(resized);
  link_->set_reserved(reserved());
  log::info("worker {} has {} KV cells (had {}), {} used; {}GB reserved", link_->pid(),
            resized.cells, before, resized.cells_used, memory::gb_text(reserved()));
}

/// A worker that is gone gets nothing, and one that does not read is ended by its watchdog.
void Pool::send(FrameType type, std::string_view payload) {
  const Result<void> sent = link_->send(type, payload);
  if (!sent) log::debug("nothing sent to worker {}: {}", link_->pid(), sent.error().message);
}

void Pool::follow(const memory::Orders& orders) {
  rung_ = orders.rung();
  if (state_ != State::kReady || !link_->usable()) return;
  const memory::Monitor::Status memory = monitor_.status();
  follow_limits(orders.rung(), memory);
  if (orders.spill_caches()) {
    const auto resize =
        budget_->shrink(link_->last_heartbeat().cells_used, !spilling_, memory, clock_.now());
    if (resize) {
      log::info("worker {} is asked to give KV cells back, down to {}", link_->pid(),
                resize->cells);
      link_->set_reserved(reserved());
      send(FrameType::kResize, worker::encode(*resize));
    }
    spilling_ = spilling_ || resize.has_value();
  } else {
    spilling_ = false;
  }
}

/// Memory for parked states is promised before the worker hears of it, and given back only when
/// the worker says that it holds no more than the new budget.
void Pool::follow_limits(memory::Rung rung, const memory::Monitor::Status& memory) {
  const Bytes held = parked_ ? parked_->held() : Bytes();
  const std::optional<Bytes> available = memory.promisable();
  // A reading failed: what is promised stays, and nothing is added, until one succeeds or the level
  // says that we do not know.
  if (memory.available && !available) return;
  const Bytes spare =
      available ? ledger_.largest_that_fits(*available, options_.floors.caution) : Bytes();
  const ScalingMost most{.sequences = options_.sequences_max,
                         .step_tokens = kStepTokensMax,
                         .parked = options_.parked_bytes_max,
                         .stored = options_.stored_bytes_max};
  worker::Limits limits = limits_at(rung, most, held, spare);
  // Idle KV is a cache too: cells for it come only out of what is above the caution floor.
  limits.caches_grow = limits.caches_grow && budget_->next_rung_takes() <= spare;
  if (limits.parked_bytes_max > held) {
    auto more = ledger_.try_reserve(saturating_sub(limits.parked_bytes_max, held), *available,
                                    options_.floors.caution);
    if (!more) {
      limits.parked_bytes_max = held;
    } else if (parked_) {
      parked_->absorb(std::move(*more));
    } else {
      parked_ = std::move(*more);
    }
  }
  if (limits_ != limits) {
    link_->set_reserved(reserved());
    send(FrameType::kLimits, worker::encode(limits));
    limits_ = limits;
    limits_at_ = clock_.now();
  }
  give_back_parked();
}

void Pool::give_back_parked() {
  // A heartbeat from before the worker has read its limits says too little.
  if (!parked_ || clock_.now() - limits_at_ < kHeardAfter) return;
  const Bytes kept = std::max(limits_->parked_bytes_max, link_->last_heartbeat().parked_bytes);
  if (kept < parked_->held()) parked_->shrink(kept);
}

/// Requests that have ended are those that were given the worker and do not use it any more.
void Pool::watch_trend() {
  const engine::Plan& first = budget_->first();
  const std::uint64_t running = link_->calls_running();
  trend_.observe(
      link_->last_heartbeat(),
      {.kv_per_cell = Bytes(first.cells > 0 ? first.estimate.kv.count() / first.cells : 0),
       .promised = saturating_sub(first.estimate.anonymous(), first.estimate.kv),
       .cells_max = budget_->cells_max(),
       .requests_ended = given_ > running ? given_ - running : 0},
      clock_.now());
  const auto& leak = trend_.leak();
  if (!leak) return;
  if (!leak_logged_) {
    leak_logged_ = true;
    log::warning(
        "worker {} of the model {} leaks: {}GB more over {} requests, for no cause that is known; "
        "it "
        "is ended when nobody uses it",
        link_->pid(), options_.model.id, memory::gb_text(leak->grown), leak->requests);
  }
  if (unload("it leaks")) ++recycled_;
}

}  // namespace pensieve::model
