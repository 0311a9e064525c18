#include "gateway/buffer_account.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "memory/report.h"

namespace pensieve::gateway {
namespace {

std::string mb_text(Bytes bytes) {
  return fmt::format("{:.1f}MB", static_cast<double>(bytes.count()) / (1 << 20));
}

}  // namespace

std::string describe(const BufferShortage& shortage) {
  if (shortage.unknown) {
    return fmt::format(
        "The request needs {} of buffers, and the server cannot read its available memory",
        mb_text(shortage.needed));
  }
  if (shortage.memory) {
    return fmt::format(
        "The request needs {} of buffers, and memory is short: {}GB available, {}GB of it promised "
        "and not yet taken, {}GB kept free",
        mb_text(shortage.needed), memory::gb_text(shortage.memory->available),
        memory::gb_text(shortage.memory->outstanding), memory::gb_text(shortage.memory->floor));
  }
  return fmt::format("The request needs {} of buffers; {} of {} are in use by other requests",
                     mb_text(shortage.needed), mb_text(shortage.held), mb_text(shortage.bytes_max));
}

BufferCharge::BufferCharge(BufferCharge&& other) noexcept
    : account_(std::exchange(other.account_, nullptr)),
      reservation_(std::exchange(other.reservation_, std::nullopt)) {}

BufferCharge& BufferCharge::operator=(BufferCharge&& other) noexcept {
  if (this != &other) {
    give_back();
    account_ = std::exchange(other.account_, nullptr);
    reservation_ = std::exchange(other.reservation_, std::nullopt);
  }
  return *this;
}

std::expected<void, BufferShortage> BufferCharge::try_grow(Bytes to) {
  if (to <= held()) return {};
  PENSIEVE_CHECK(account_ != nullptr);
  auto more = account_->reserve(held(), saturating_sub(to, held()));
  if (!more) return std::unexpected(more.error());
  reservation_->absorb(std::move(*more));
  return {};
}

void BufferCharge::shrink(Bytes to) {
  if (!reservation_ || to >= held()) return;
  account_->held_ = saturating_sub(account_->held_, saturating_sub(held(), to));
  reservation_->shrink(to);
}

BufferCharge BufferCharge::split(Bytes amount) {
  if (!reservation_) return {};
  return {*account_, reservation_->split(std::min(amount, held()))};
}

std::expected<std::shared_ptr<BufferCharge>, BufferShortage> BufferCharge::charge_frame(
    Bytes kept, Bytes frame) {
  const auto grown = try_grow(Bytes(kept.count() + frame.count()));
  if (!grown) return std::unexpected(grown.error());
  return std::make_shared<BufferCharge>(split(frame));
}

void BufferCharge::give_back() {
  shrink(Bytes());
  reservation_.reset();
  account_ = nullptr;
}

std::expected<BufferCharge, BufferShortage> BufferAccount::try_charge(Bytes amount) {
  auto reservation = reserve(Bytes(), amount);
  if (!reservation) return std::unexpected(reservation.error());
  return BufferCharge(*this, std::move(*reservation));
}

std::expected<memory::Reservation, BufferShortage> BufferAccount::reserve(Bytes before,
                                                                          Bytes amount) {
  BufferShortage shortage{.needed = amount,
                          .held = held_,
                          .bytes_max = options_.bytes_max,
                          .memory = std::nullopt,
                          .unknown = false};
  const std::optional<Bytes> sum = checked_add(held_, amount);
  const std::optional<Bytes> whole = checked_add(before, amount);
  if (!sum || !whole || *sum > options_.bytes_max) return std::unexpected(shortage);
  if (*whole <= kUnrefusedBytes) {
    held_ = *sum;
    return ledger_.book(amount);
  }
  const memory::Monitor::Status memory = monitor_.check();
  if (!memory.available) {
    shortage.unknown = true;
    return std::unexpected(shortage);
  }
  const Bytes floor = options_.floors.critical;
  if (*whole > kOrdinaryBytes) {
    const std::optional<Bytes> available = memory.promisable();
    if (!available) {
      shortage.unknown = true;
      return std::unexpected(shortage);
    }
    auto reserved = ledger_.try_reserve(amount, *available, floor);
    if (!reserved) {
      shortage.memory = reserved.error();
      return std::unexpected(shortage);
    }
    held_ = *sum;
    return std::move(*reserved);
  }
  if (Bytes(sum->count() + floor.count()) > *memory.available) {
    shortage.memory = memory::Shortage{amount, *memory.available, held_, floor};
    return std::unexpected(shortage);
  }
  held_ = *sum;
  return ledger_.book(amount);
}

}  // namespace pensieve::gateway
