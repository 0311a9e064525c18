// How many KV cells one worker may have: what each number of them takes, and the promise in the
// ledger that covers the present one.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "memory/ledger.h"
#include "memory/level.h"
#include "memory/monitor.h"
#include "worker/messages.h"

namespace pensieve::model {

/// The KV cache of a worker grows and shrinks by rungs, each planned before the load. What a rung
/// takes is promised before the worker may take it, with the copy that a resize makes on top; what
/// a smaller one leaves over is given back only after the worker has said that it is done. So the
/// promise covers the worker at every moment, whatever it has got to.
///
/// One resize at a time: what is asked meanwhile gets no answer, and a worker asks again.
///
/// Ownership: borrows the ledger. Thread-safety: one thread at a time.
class CellBudget {
 public:
  /// At Warning and worse the cache is shrunk at most this often. Choice: a resize stops the worker
  /// for up to 150 ms.
  static constexpr Duration kShrinkEvery = std::chrono::seconds(2);

  /// `rungs` are plans with ascending numbers of cells; `window` of them are what one request can
  /// need, more are for several at once. REQUIRES: there is one rung at least.
  CellBudget(memory::Ledger& ledger, const memory::Floors& floors, std::vector<engine::Plan> rungs,
             std::uint32_t window);

  /// Promises what a load with the first rung takes. Errors: what is missing; nothing is promised.
  std::expected<void, memory::Shortage> reserve_first(Bytes available);

  /// The worker's answer to kLoad: it has so many cells.
  void loaded(std::uint32_t cells) { cells_ = cells; }

  /// Empty where a resize is under way. Grants the wanted rung, or the largest below it that fits
  /// and is more than there is; the rungs above `window` only out of what is above the caution
  /// floor, because without them requests wait instead of failing. At Critical and worse, or
  /// without a reading, nothing is granted.
  using Answer = std::variant<std::monostate, worker::Resize, worker::ResizeRefused>;
  Answer grant(const worker::NeedCells& need, const memory::Monitor::Status& memory);

  /// Gives cells back under pressure: an order to the worker, or nothing where none can be had back
  /// now. `cells_used` is what the worker said last. With `also_used` idle sequences have to go
  /// too; else only what nobody uses. The worker keeps what its running requests hold.
  /// The copy of a resize may reach below the critical floor, but not below the emergency floor:
  /// it is smaller than what comes back, and gone in a moment.
  std::optional<worker::Resize> shrink(std::uint32_t cells_used, bool also_used,
                                       const memory::Monitor::Status& memory, TimePoint now);

  void resized(const worker::Resized& resized);

  /// For booking how much of the promise has become resident. REQUIRES: reserve_first() succeeded.
  memory::Reservation& reservation() { return *reservation_; }

  Bytes reserved() const;
  std::uint32_t cells() const { return cells_; }
  std::uint32_t cells_max() const { return rungs_.back().cells; }
  const engine::Plan& first() const { return rungs_.front(); }
  /// What the next rung takes beyond what is promised now; zero at the last one.
  Bytes next_rung_takes() const;
  /// What the cells above the rung of `cells_used` take.
  Bytes spare(std::uint32_t cells_used) const;

 private:
  /// The smallest rung with at least so many cells, or the largest there is.
  const engine::Plan& rung_for(std::uint32_t cells) const;
  std::expected<void, memory::Shortage> extend(Bytes to, Bytes available, Bytes floor);

  memory::Ledger& ledger_;
  const memory::Floors floors_;
  const std::vector<engine::Plan> rungs_;
  const std::uint32_t window_;
  std::optional<memory::Reservation> reservation_;
  std::uint32_t cells_ = 0;
  bool resizing_ = false;
  std::optional<TimePoint> shrunk_at_;
};

}  // namespace pensieve::model
