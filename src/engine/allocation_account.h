// What a piece of work takes of the heap, counted and bounded: for libraries without bounds.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "base/bytes.h"

namespace pensieve::engine {

/// An account is at its end, or was stopped. The machine's memory is not at its end.
class AllocationRefused final : public std::bad_alloc {
 public:
  const char* what() const noexcept override { return "it takes too much memory"; }
};

/// What several accounts may borrow beyond what each has for itself.
///
/// Thread-safety: any thread.
class AllocationPool {
 public:
  explicit AllocationPool(Bytes size) : left_(static_cast<std::int64_t>(size.count())) {}

  /// Nothing has changed where it is false.
  bool try_take(std::int64_t bytes);
  void give_back(std::int64_t bytes) { left_ += bytes; }
  Bytes left() const { return Bytes(static_cast<std::uint64_t>(left_.load())); }

 private:
  std::atomic<std::int64_t> left_;
};

/// Counts what is taken by `new` and given back by `delete` in its AllocationScopes, and lets no
/// more be taken than it has: `new` throws AllocationRefused instead. Sizes are those of malloc's
/// blocks; what malloc keeps between blocks is not in them. What an account has borrowed it gives
/// back when it ends, and not before.
///
/// Destructors that allocate must not fail, and logging from them must not either: while an
/// exception is under way nothing is refused, and a quarter of what an account has for itself is
/// for small blocks alone. What grows without end needs a large one soon.
///
/// Holds for a program because allocation_account.cc replaces its global operators; without a scope
/// they cost a look at one thread-local pointer.
///
/// Thread-safety: stop() from any thread; all else by one thread at a time.
class AllocationAccount {
 public:
  AllocationAccount(Bytes own, std::shared_ptr<AllocationPool> pool);
  ~AllocationAccount();
  AllocationAccount(const AllocationAccount&) = delete;
  AllocationAccount& operator=(const AllocationAccount&) = delete;

  /// Taken less given back; never less than nothing, whatever was given back for others.
  Bytes held() const { return Bytes(held_ > 0 ? static_cast<std::uint64_t>(held_) : 0); }
  Bytes borrowed() const { return Bytes(static_cast<std::uint64_t>(borrowed_)); }

  /// From now on no large block may be taken: the work ends with the next one.
  void stop() { is_stopped_ = true; }

  // For the operators.
  bool may_take(std::size_t size);
  void take(std::size_t size) { held_ += static_cast<std::int64_t>(size); }
  void give_back(std::size_t size) { held_ -= static_cast<std::int64_t>(size); }

 private:
  bool has(std::size_t size);

  const std::int64_t own_;
  const std::shared_ptr<AllocationPool> pool_;
  std::int64_t borrowed_ = 0;
  std::int64_t held_ = 0;
  std::atomic<bool> is_stopped_ = false;
};

/// What this thread allocates goes to `account` as long as the scope lives. Scopes do not nest.
class AllocationScope {
 public:
  explicit AllocationScope(AllocationAccount& account);
  ~AllocationScope();
  AllocationScope(const AllocationScope&) = delete;
  AllocationScope& operator=(const AllocationScope&) = delete;
};

}  // namespace pensieve::engine
