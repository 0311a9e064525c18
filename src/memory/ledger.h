// Books the memory that is promised to models and requests, before anyone takes it.
#pragma once

#include <expected>
#include <mutex>
#include <string>

#include "base/bytes.h"
#include "base/error.h"

namespace pensieve::memory {

class Ledger;

/// Why a reservation was refused: available - outstanding - needed would be below the floor.
struct Shortage {
  Bytes needed;
  Bytes available;
  Bytes outstanding;  // Promised to others and not yet resident.
  Bytes floor;        // What has to stay free.
};

/// For people and the API: "needs 1.21GB, but only 0.50GB can be promised: 2.00GB available, ...".
std::string describe(const Shortage& shortage);

/// Memory set aside for one holder. Giving it back is the destructor's work, so no return path,
/// early exit or exception can leak a promise.
///
/// Ownership: move-only; the Ledger must outlive it. Thread-safety: one thread at a time.
class [[nodiscard]] Reservation {
 public:
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation() { give_back(); }

  Bytes held() const { return held_; }

  /// How much of held() is resident, as last settled.
  Bytes resident() const { return resident_; }

  /// Says how much of the promise has become resident and is therefore missing from the available
  /// memory already; it is not subtracted a second time. The figure replaces the last one and may
  /// go down. What is above held() is not counted: drift is the measurer's to report, and must
  /// not make room for others. File-backed pages (mapped weights) are never settled: the kernel
  /// counts them as available, so their promise has to stay outstanding.
  void settle(Bytes resident);

  /// Gives back all above `to`, e.g. the loading peak once a model has settled. There is no grow():
  /// an estimate is an upper bound, and what turns out to be larger has to reserve anew.
  /// REQUIRES: to <= held().
  void shrink(Bytes to);

  /// Takes over all that `other` holds, resident part included; the book's sums do not change.
  /// REQUIRES: both are of one ledger, or either holds nothing.
  void absorb(Reservation other);

  /// A reservation of its own for `amount` of what this one holds and is not resident; the book's
  /// sums do not change. REQUIRES: amount <= held(). What is resident stays here as far as it fits.
  Reservation split(Bytes amount);

 private:
  friend class Ledger;
  Reservation(Ledger& ledger, Bytes held) : ledger_(&ledger), held_(held) {}
  void give_back();
  void rebook(Bytes held, Bytes resident);

  Ledger* ledger_;  // Null once moved from.
  Bytes held_;
  Bytes resident_;  // <= held_.
};

/// Refuses what would take the available memory below a floor once every promise is kept:
/// `available - outstanding() - amount >= floor`, or no reservation. Knows nothing of models or
/// requests.
///
/// Thread-safety: all members, from any thread. Nothing blocks: who may not have memory now is
/// told so now, and waiting (or refusing with 503) is the caller's decision.
class Ledger {
 public:
  Ledger() = default;
  /// REQUIRES: every Reservation is gone. Aborts otherwise: a promise would outlive its book.
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Sets `amount` aside, or says what is missing and changes nothing. Exactly at the floor fits.
  /// REQUIRES: `available` was read after the last settle(). An older figure still shows as
  /// available what was settled since, and that memory would be given away twice.
  std::expected<Reservation, Shortage> try_reserve(Bytes amount, Bytes available, Bytes floor);

  /// Writes `amount` down without asking whether there is room: for what cannot be refused any
  /// more, because it is taken already (a worker above its estimate) or because refusing costs as
  /// much (the head of a request). Whoever calls this has a bound of its own on the sum. REQUIRES:
  /// the sum fits 64 bits. Aborts otherwise.
  Reservation book(Bytes amount);

  /// The largest amount that try_reserve() would grant now; zero where it would grant none.
  Bytes largest_that_fits(Bytes available, Bytes floor) const;

  /// The sum of held() over all live reservations.
  Bytes promised() const;

  /// Promised and not yet resident: what the available memory does not show yet.
  Bytes outstanding() const;

 private:
  friend class Reservation;

  /// Replaces one reservation's part of both sums.
  void rebook(Bytes held_before, Bytes held, Bytes resident_before, Bytes resident);
  Bytes outstanding_locked() const;

  mutable std::mutex mutex_;
  Bytes promised_;  // Guarded by mutex_, as is resident_.
  Bytes resident_;  // <= promised_.
};

}  // namespace pensieve::memory
