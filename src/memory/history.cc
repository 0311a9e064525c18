#include "memory/history.h"

#include <algorithm>

namespace pensieve::memory {
namespace {

constexpr unsigned kUnitBits = 16;  // 64 KiB.

std::uint32_t units(Bytes bytes) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(bytes.count() >> kUnitBits, UINT32_MAX));
}

Bytes bytes(std::uint32_t units) {
  return Bytes(static_cast<std::uint64_t>(units) << kUnitBits);
}

}  // namespace

void HistoryRing::record(const std::optional<Bytes>& available, Level level, Bytes held,
                         TimePoint now) {
  if (!first_at_) first_at_ = now;
  const std::int64_t index = (now - *first_at_) / step_;
  if (index != index_) {
    // Steps in which nobody looked are unknown; a ring's worth of them is all that can matter.
    const std::int64_t oldest =
        std::max(index_ + 1, index - static_cast<std::int64_t>(slots_.size()) + 1);
    for (std::int64_t skipped = oldest; skipped <= index; ++skipped) slot(skipped) = Slot();
    index_ = index;
    sum_ = 0;
    count_ = 0;
  }
  if (!available) return;
  Slot& current = slot(index_);
  const std::uint32_t figure = units(*available);
  sum_ += figure;
  ++count_;
  current.min = current.known ? std::min(current.min, figure) : figure;
  current.max = std::max(current.max, figure);
  current.avg = static_cast<std::uint32_t>(sum_ / count_);
  current.held = units(held);
  current.level = std::max(current.level, level);
  current.known = true;
}

std::vector<std::optional<HistoryEntry>> HistoryRing::entries() const {
  std::vector<std::optional<HistoryEntry>> entries;
  if (!first_at_) return entries;
  const auto size = static_cast<std::int64_t>(slots_.size());
  const std::int64_t oldest = std::max<std::int64_t>(0, index_ - size + 1);
  entries.reserve(static_cast<std::size_t>(index_ - oldest + 1));
  for (std::int64_t index = oldest; index <= index_; ++index) {
    const Slot& slot = slots_[static_cast<std::size_t>(index % size)];
    if (!slot.known) {
      entries.emplace_back();
      continue;
    }
    entries.emplace_back(HistoryEntry{bytes(slot.min), bytes(slot.avg), bytes(slot.max),
                                      bytes(slot.held), slot.level});
  }
  return entries;
}

}  // namespace pensieve::memory
