// What the gateway's own buffers may take: every request is charged before its bytes are read.
#pragma once

#include <cstddef>
#include <expected>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "memory/ledger.h"
#include "memory/level.h"
#include "memory/monitor.h"

namespace pensieve::gateway {

class BufferAccount;

/// Why a charge was refused; nothing has changed.
struct BufferShortage {
  Bytes needed;     // On top of what the same charge holds already.
  Bytes held;       // By all charges of the account.
  Bytes bytes_max;  // For all of them.
  /// Set where there is no room in the memory rather than below bytes_max; what is set aside for
  /// models and others is in it.
  std::optional<memory::Shortage> memory;
  bool unknown = false;  // The available memory cannot be read.
};

/// For the API error's message, with the numbers.
std::string describe(const BufferShortage& shortage);

/// One request's share. Its destructor gives all of it back.
///
/// Ownership: move-only; the account must outlive it. Thread-safety: as the account.
class [[nodiscard]] BufferCharge {
 public:
  BufferCharge() = default;  // Holds nothing and cannot grow.
  BufferCharge(BufferCharge&& other) noexcept;
  BufferCharge& operator=(BufferCharge&& other) noexcept;
  ~BufferCharge() { give_back(); }

  Bytes held() const { return reservation_ ? reservation_->held() : Bytes(); }

  /// Holds at least `to` afterwards, or says why not and has changed nothing. Never shrinks.
  std::expected<void, BufferShortage> try_grow(Bytes to);
  /// Gives back what is above `to`; nothing where it holds less.
  void shrink(Bytes to);
  /// A charge of its own for `amount` of this one, or for all of it where that is less.
  BufferCharge split(Bytes amount);
  /// A charge of its own for a frame of `frame` bytes that waits to be written, beside at least
  /// `kept` here; or why not, and nothing has changed.
  std::expected<std::shared_ptr<BufferCharge>, BufferShortage> charge_frame(Bytes kept,
                                                                            Bytes frame);
  void give_back();

 private:
  friend class BufferAccount;
  BufferCharge(BufferAccount& account, memory::Reservation reservation)
      : account_(&account), reservation_(std::move(reservation)) {}

  BufferAccount* account_ = nullptr;
  std::optional<memory::Reservation> reservation_;
};

/// One bound on the sum of all that requests hold in the gateway: bodies, parsed requests, frames
/// that wait for a worker, text that waits for a client, whole answers. Each is in the ledger as
/// well, so that a model's load or growth cannot be given the same bytes.
///
/// A charge is refused where the sum would pass `bytes_max`, and, by its size:
///  - up to kUnrefusedBytes: never for lack of memory. An answer of 503 takes as much.
///  - up to kOrdinaryBytes: where less than the critical floor would stay available. The promises
///    of models do not count here: they hold mapped weights for good, which the kernel counts as
///    available, and a server whose level is Safe must not refuse ordinary requests for them.
///  - above: where the ledger would not promise it to a model either.
///
/// Ownership: borrows ledger and monitor. Thread-safety: the io thread only.
class BufferAccount {
 public:
  static constexpr Bytes kUnrefusedBytes{1U << 20};
  static constexpr Bytes kOrdinaryBytes{16U << 20};

  struct Options {
    Bytes bytes_max = 512_MiB;
    memory::Floors floors;
  };

  BufferAccount(memory::Ledger& ledger, memory::Monitor& monitor, const Options& options)
      : ledger_(ledger), monitor_(monitor), options_(options) {}
  BufferAccount(const BufferAccount&) = delete;
  BufferAccount& operator=(const BufferAccount&) = delete;

  std::expected<BufferCharge, BufferShortage> try_charge(Bytes amount);

  Bytes held() const { return held_; }
  Bytes bytes_max() const { return options_.bytes_max; }
  const memory::Floors& floors() const { return options_.floors; }

 private:
  friend class BufferCharge;
  /// `before` is what the charge holds already: its size decides as a whole.
  std::expected<memory::Reservation, BufferShortage> reserve(Bytes before, Bytes amount);

  memory::Ledger& ledger_;
  memory::Monitor& monitor_;
  const Options options_;
  /// Never settled: what is filled counts twice for the short life of a request, against us.
  Bytes held_;
};

/// What a request of a body of so many bytes takes at most until its answer begins: the head; and
/// the body, its text in plain types, the frame for the worker, and what one of these needs while
/// it grows. Measured and counted in docs/design/buffers.md.
constexpr Bytes request_bytes(std::uint64_t body_bytes) {
  constexpr std::uint64_t kHead = 64ULL << 10;
  constexpr std::uint64_t kCopies = 4;
  return Bytes(kHead + kCopies * body_bytes);
}

}  // namespace pensieve::gateway
