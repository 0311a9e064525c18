// When a worker asks its gateway for KV cells, and what it was told.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "worker/memory_messages.h"

namespace pensieve::worker {

/// The pace of asking. A gateway may say yes, no, or nothing (it is busy with another resize, or
/// it does not know the question), and memory that is short now comes back by and by: so what was
/// not granted is asked again, at a pace that costs nothing.
///
/// Pure: time comes from the caller. Not thread-safe.
class CellDemand {
 public:
  /// Choice: a grant after a shortage comes within about a second, and one small frame a second
  /// is nothing. Also how long a question counts as open.
  static constexpr Duration kAskEvery = std::chrono::seconds(1);
  /// How long a request that cannot go on without more cells waits for them. Choice: a governor
  /// frees within seconds what can be freed; after that the client should know.
  static constexpr Duration kCellsWaitMax = std::chrono::seconds(10);

  /// The question to send now, or nothing: there are enough cells, or it was sent less than
  /// kAskEvery ago.
  std::optional<NeedCells> question(std::uint32_t cells, std::uint64_t wanted, TimePoint now) {
    if (wanted <= cells) {
      asked_at_.reset();
      open_since_.reset();
      return std::nullopt;
    }
    if (asked_at_ && now - *asked_at_ < kAskEvery) return std::nullopt;
    asked_at_ = now;
    if (!open_since_) open_since_ = now;
    constexpr std::uint64_t kMost = UINT32_MAX;
    return NeedCells{cells, static_cast<std::uint32_t>(wanted < kMost ? wanted : kMost)};
  }

  /// A kResize was carried out. Where it changed nothing (the engine failed), the pace stays: a
  /// grant that fails again and again must not keep the worker busy with failing.
  void answered(bool cells_have_changed) {
    open_since_.reset();
    if (!cells_have_changed) return;
    asked_at_.reset();
    refusal_.reset();
  }

  void refused(ResizeRefused refusal) {
    open_since_.reset();
    refusal_ = std::move(refusal);
  }

  /// Whether an answer may still come soon, so that it is worth a short wait. A gateway that has
  /// not answered for kAskEvery is not waited for, however often it is asked again.
  bool awaits_answer(TimePoint now) const { return open_since_ && now - *open_since_ < kAskEvery; }

  /// The last no, where no cells have come since.
  const std::optional<ResizeRefused>& refusal() const { return refusal_; }

 private:
  std::optional<TimePoint> asked_at_;
  std::optional<TimePoint> open_since_;  // The first question that is not answered.
  std::optional<ResizeRefused> refusal_;
};

}  // namespace pensieve::worker
