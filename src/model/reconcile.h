// Compares what was promised to a worker with what it holds, and makes the book true again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "engine/engine.h"
#include "memory/ledger.h"
#include "model/estimate_book.h"

namespace pensieve::model {

/// What a worker says of itself, once a second.
struct Measured {
  Bytes resident;
  Bytes anonymous;  // Zero: it has not said yet.
  std::uint32_t used_cells = 0;
  std::uint32_t cells = 0;
};

enum class Drift : std::uint8_t {
  kUnknown,  // Nothing measured yet.
  kWithin,
  kAbove,  // The worker holds more than was reserved for it, by more than kDriftAboveMax.
  kBelow,  // It holds less than a quarter of it although its KV cache is full.
};
std::string_view name(Drift drift);  // "unknown", "within", "above", "below"

/// The account of one worker at a time. Only anonymous memory is compared: mapped weights are
/// promised for good and are the kernel's to drop.
///
/// What a worker holds above its reservation is promised as well, at the next tick, as a booking of
/// its own that is resident from the start: nothing that is taken is invisible, and nobody else is
/// given room because of it. The peak goes into the book of estimates when the worker ends, and at
/// each new highest excess in case the gateway ends first.
///
/// Ownership: borrows the ledger. Thread-safety: the pool's executor.
class Reconciler {
 public:
  /// Below this nobody is told: heaps breathe. Choice.
  static constexpr Bytes kDriftAboveMax{16U << 20};

  struct Status {
    Drift drift = Drift::kUnknown;
    Bytes reserved;            // The anonymous part, corrections included.
    Bytes measured;            // Anonymous, at the last tick.
    Bytes excess;              // Booked above the reservation now.
    std::uint64_t drifts = 0;  // Times that kAbove or kBelow was entered, since start.
    Bytes raised;              // How the estimate was corrected by earlier runs: up,
    Bytes lowered;             // or down.
  };

  Reconciler(memory::Ledger& ledger, const std::string& estimates_path)
      : ledger_(ledger), book_(estimates_path) {}

  /// Which model the next worker is for: `key` as estimate_key() gives it.
  void set_key(std::string key) { key_ = std::move(key); }
  /// The engine's estimate after what earlier runs took.
  engine::MemoryEstimate correct(const engine::MemoryEstimate& estimate);

  /// A load was refused only because its estimate was raised: the memory of earlier runs fades, so
  /// that a leak of long ago cannot keep a model out for good.
  void doubt();

  /// The worker is ready; `mapped` of its reservation is for mapped weights.
  void begin(std::string worker, Bytes mapped);
  /// Settles the reservation by what is resident, and books what is above it. REQUIRES: begin().
  void tick(memory::Reservation& reservation, const Measured& measured);
  /// The worker is gone: nothing stays booked. Ends nothing where nothing began.
  void end();

  const Status& status() const { return status_; }

 private:
  void book_excess(Bytes excess);
  void note_peak(const Measured& measured);
  void enter(Drift drift);
  Drift judged(const Measured& measured) const;

  memory::Ledger& ledger_;
  EstimateBook book_;
  std::string key_;
  std::string worker_;  // For log lines.
  bool begun_ = false;
  Bytes mapped_;
  Run run_;
  Bytes remembered_above_;  // Of this run, already in the book.
  std::optional<memory::Reservation> excess_;
  Status status_;
};

}  // namespace pensieve::model
