#include "memory/ledger.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/core.h>

#include "memory/report.h"

namespace pensieve::memory {
namespace {

/// `sum` with one part of it replaced. A part that is not in the sum is a fault of ours.
Bytes replaced(Bytes sum, Bytes before, Bytes after) {
  PENSIEVE_CHECK(before <= sum);
  const std::optional<Bytes> result = checked_add(saturating_sub(sum, before), after);
  PENSIEVE_CHECK(result.has_value());
  return *result;
}

}  // namespace

std::string describe(const Shortage& shortage) {
  const Bytes room =
      saturating_sub(saturating_sub(shortage.available, shortage.outstanding), shortage.floor);
  // Rounded up, so that "needs" never reads smaller than the room that was too small for it.
  constexpr Bytes kAlmostOneHundredth((1ULL << 30) / 100);
  const std::optional<Bytes> needed = checked_add(shortage.needed, kAlmostOneHundredth);
  return fmt::format(
      "needs {}GB, but only {}GB can be promised: {}GB available, {}GB of it promised and not yet "
      "taken, {}GB kept free",
      gb_text(needed ? *needed : shortage.needed), gb_text(room), gb_text(shortage.available),
      gb_text(shortage.outstanding), gb_text(shortage.floor));
}

Reservation::Reservation(Reservation&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)),
      held_(std::exchange(other.held_, Bytes())),
      resident_(std::exchange(other.resident_, Bytes())) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    give_back();
    ledger_ = std::exchange(other.ledger_, nullptr);
    held_ = std::exchange(other.held_, Bytes());
    resident_ = std::exchange(other.resident_, Bytes());
  }
  return *this;
}

void Reservation::settle(Bytes resident) {
  PENSIEVE_CHECK(ledger_ != nullptr);
  rebook(held_, std::min(resident, held_));
}

void Reservation::shrink(Bytes to) {
  PENSIEVE_CHECK(ledger_ != nullptr && to <= held_);
  rebook(to, std::min(resident_, to));
}

void Reservation::absorb(Reservation other) {
  if (other.ledger_ == nullptr) return;
  if (ledger_ == nullptr) ledger_ = other.ledger_;
  PENSIEVE_CHECK(ledger_ == other.ledger_);
  const std::optional<Bytes> held = checked_add(held_, other.held_);
  const std::optional<Bytes> resident = checked_add(resident_, other.resident_);
  PENSIEVE_CHECK(held && resident);
  held_ = *held;
  resident_ = *resident;
  other.ledger_ = nullptr;
}

Reservation Reservation::split(Bytes amount) {
  PENSIEVE_CHECK(ledger_ != nullptr && amount <= held_);
  const Bytes rest = saturating_sub(held_, amount);
  Reservation part(*ledger_, amount);
  part.resident_ = saturating_sub(resident_, rest);
  resident_ = std::min(resident_, rest);
  held_ = rest;
  return part;
}

void Reservation::give_back() {
  if (ledger_ != nullptr) rebook(Bytes(), Bytes());
}

void Reservation::rebook(Bytes held, Bytes resident) {
  ledger_->rebook(held_, held, resident_, resident);
  held_ = held;
  resident_ = resident;
}

Ledger::~Ledger() {
  PENSIEVE_CHECK(promised_ == Bytes() && resident_ == Bytes());
}

std::expected<Reservation, Shortage> Ledger::try_reserve(Bytes amount, Bytes available,
                                                         Bytes floor) {
  const std::lock_guard lock(mutex_);
  const Bytes outstanding = outstanding_locked();
  const Shortage shortage{amount, available, outstanding, floor};
  // Added up rather than subtracted: where a sum does not fit 64 bits, it does not fit at all.
  const std::optional<Bytes> spoken_for = checked_add(outstanding, floor);
  if (!spoken_for) return std::unexpected(shortage);
  const std::optional<Bytes> wanted = checked_add(*spoken_for, amount);
  if (!wanted || *wanted > available) return std::unexpected(shortage);
  const std::optional<Bytes> promised = checked_add(promised_, amount);
  if (!promised) return std::unexpected(shortage);
  promised_ = *promised;
  return Reservation(*this, amount);
}

Reservation Ledger::book(Bytes amount) {
  const std::lock_guard lock(mutex_);
  promised_ = replaced(promised_, Bytes(), amount);
  return Reservation(*this, amount);
}

Bytes Ledger::largest_that_fits(Bytes available, Bytes floor) const {
  return saturating_sub(saturating_sub(available, outstanding()), floor);
}

Bytes Ledger::promised() const {
  const std::lock_guard lock(mutex_);
  return promised_;
}

Bytes Ledger::outstanding() const {
  const std::lock_guard lock(mutex_);
  return outstanding_locked();
}

void Ledger::rebook(Bytes held_before, Bytes held, Bytes resident_before, Bytes resident) {
  PENSIEVE_CHECK(resident <= held);
  const std::lock_guard lock(mutex_);
  promised_ = replaced(promised_, held_before, held);
  resident_ = replaced(resident_, resident_before, resident);
  PENSIEVE_CHECK(resident_ <= promised_);
}

Bytes Ledger::outstanding_locked() const {
  return saturating_sub(promised_, resident_);
}

}  // namespace pensieve::memory
