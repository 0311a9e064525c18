// A budget of bytes of which shares are taken before the memory is, and given back after it.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "base/bytes.h"

namespace pensieve::worker {

/// What is charged never exceeds the limit, except after set_limit() has lowered it: then no new
/// charge is granted until enough has come back.
///
/// Ownership: must outlive its charges. Thread-safety: any thread.
class ByteBudget {
 public:
  /// A share of the budget; its destructor gives it back. Move-only.
  class Charge {
   public:
    Charge(Charge&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Charge& operator=(Charge&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Charge() {
      if (budget_ != nullptr) budget_->give_back(bytes_);
    }
    Bytes bytes() const { return bytes_; }

   private:
    friend class ByteBudget;
    Charge(ByteBudget& budget, Bytes bytes) : budget_(&budget), bytes_(bytes) {}

    ByteBudget* budget_;
    Bytes bytes_;
  };

  /// Empty, and nothing has changed, where the sum would be above the limit; at the limit is in.
  std::optional<Charge> try_charge(Bytes bytes) {
    const std::lock_guard lock(mutex_);
    const std::optional<Bytes> sum = checked_add(used_, bytes);
    if (!sum || *sum > limit_) return std::nullopt;
    used_ = *sum;
    return Charge(*this, bytes);
  }

  void set_limit(Bytes limit) {
    const std::lock_guard lock(mutex_);
    limit_ = limit;
  }
  Bytes limit() const {
    const std::lock_guard lock(mutex_);
    return limit_;
  }
  Bytes used() const {
    const std::lock_guard lock(mutex_);
    return used_;
  }

 private:
  void give_back(Bytes bytes) {
    const std::lock_guard lock(mutex_);
    used_ = saturating_sub(used_, bytes);
  }

  mutable std::mutex mutex_;
  Bytes limit_;
  Bytes used_;
};

}  // namespace pensieve::worker
