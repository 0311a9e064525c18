#include "model/cell_budget.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace pensieve::model {
namespace {

/// Growth that a running request makes soon anyway; cells for it are not worth a resize.
constexpr std::uint32_t kGrowthCells = 256;

Bytes sum(Bytes a, Bytes b) {
  const std::optional<Bytes> result = checked_add(a, b);
  return result ? *result : Bytes(UINT64_MAX);  // No machine has it: the ledger refuses.
}

}  // namespace

CellBudget::CellBudget(memory::Ledger& ledger, const memory::Floors& floors,
                       std::vector<engine::Plan> rungs, std::uint32_t window)
    : ledger_(ledger), floors_(floors), rungs_(std::move(rungs)), window_(window) {
  PENSIEVE_CHECK(!rungs_.empty());
  PENSIEVE_CHECK(std::is_sorted(rungs_.begin(), rungs_.end(),
                                [](const auto& a, const auto& b) { return a.cells < b.cells; }));
}

std::expected<void, memory::Shortage> CellBudget::reserve_first(Bytes available) {
  auto reserved = ledger_.try_reserve(rungs_.front().estimate.total(), available, floors_.critical);
  if (!reserved) return std::unexpected(reserved.error());
  reservation_ = std::move(*reserved);
  cells_ = rungs_.front().cells;
  return {};
}

CellBudget::Answer CellBudget::grant(const worker::NeedCells& need,
                                     const memory::Monitor::Status& memory) {
  if (resizing_) return std::monostate();
  worker::ResizeRefused refused{memory.level, memory.available, ""};
  if (need.cells_now >= rungs_.back().cells) {
    refused.reason = fmt::format("the KV cache has its most cells already, {}", need.cells_now);
    return refused;
  }
  const std::optional<Bytes> available = memory.promisable();
  if (!available || memory.level >= memory::Level::kCritical) {
    refused.reason = available ? "the KV cache does not grow at this memory level"
                               : "the available memory cannot be read now";
    return refused;
  }
  const Bytes copy = rung_for(need.cells_now).resize_copy;
  for (auto rung = rungs_.rbegin(); rung != rungs_.rend(); ++rung) {
    if (rung->cells <= need.cells_now) break;
    if (rung->cells > rung_for(need.cells_wanted).cells) continue;
    const Bytes floor = rung->cells > window_ ? floors_.caution : floors_.critical;
    const auto extended = extend(sum(rung->estimate.total(), copy), *available, floor);
    if (extended) {
      resizing_ = true;
      return worker::Resize{rung->cells};
    }
    refused.reason = fmt::format("a KV cache of {} cells does not fit: {}", rung->cells,
                                 memory::describe(extended.error()));
  }
  return refused;
}

std::optional<worker::Resize> CellBudget::shrink(std::uint32_t cells_used, bool also_used,
                                                 const memory::Monitor::Status& memory,
                                                 TimePoint now) {
  if (resizing_ || (shrunk_at_ && now - *shrunk_at_ < kShrinkEvery)) return std::nullopt;
  const engine::Plan& kept = rung_for(cells_used + kGrowthCells);
  const engine::Plan& target = also_used ? rungs_.front() : kept;
  if (target.cells >= cells_) return std::nullopt;
  if (cells_used > 0) {
    // Without a reading nobody can say whether there is room for the copy.
    const std::optional<Bytes> available = memory.promisable();
    if (!available) return std::nullopt;
    const Bytes with_copy = sum(reserved(), rung_for(cells_used).resize_copy);
    if (!extend(with_copy, *available, floors_.emergency)) return std::nullopt;
  }
  resizing_ = true;
  shrunk_at_ = now;
  return worker::Resize{target.cells};
}

void CellBudget::resized(const worker::Resized& resized) {
  resizing_ = false;
  cells_ = resized.cells;
  const Bytes needed = rung_for(resized.cells).estimate.total();
  reservation_->shrink(std::min(needed, reservation_->held()));
}

Bytes CellBudget::reserved() const {
  return reservation_ ? reservation_->held() : Bytes();
}

Bytes CellBudget::next_rung_takes() const {
  if (cells_ >= cells_max()) return Bytes();
  const Bytes total = rung_for(cells_ + 1).estimate.total();
  return saturating_sub(sum(total, rung_for(cells_).resize_copy), reserved());
}

Bytes CellBudget::spare(std::uint32_t cells_used) const {
  return saturating_sub(rung_for(cells_).estimate.total(),
                        rung_for(cells_used + kGrowthCells).estimate.total());
}

const engine::Plan& CellBudget::rung_for(std::uint32_t cells) const {
  const auto found = std::find_if(rungs_.begin(), rungs_.end(),
                                  [&](const engine::Plan& rung) { return rung.cells >= cells; });
  return found == rungs_.end() ? rungs_.back() : *found;
}

/// Raises the promise to `to`; it stays as it is where that does not fit, or where it covers that.
std::expected<void, memory::Shortage> CellBudget::extend(Bytes to, Bytes available, Bytes floor) {
  const Bytes more = saturating_sub(to, reservation_->held());
  auto reserved = ledger_.try_reserve(more, available, floor);
  if (!reserved) return std::unexpected(reserved.error());
  reservation_->absorb(std::move(*reserved));
  return {};
}

}  // namespace pensieve::model
