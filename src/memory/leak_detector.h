// Does a worker's memory grow with the requests that it has answered? Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.h"

namespace pensieve::memory {

/// Judges one worker over its life; a new worker gets a new detector.
///
/// Requests are put into blocks. Of each block the least unexplained memory counts: the moment at
/// which most of what requests need for a while was given back. A leak is memory that grows from
/// block to block and does not stop: at least kGrownLeast in all, in nearly every block, and in the
/// second half of them not much less than in the first. A heap that fills up to what it needs
/// flattens out and is none; neither is one block that took a lot at once.
///
/// When kBlocksMax blocks are full, pairs become one block of twice as many requests: a small leak
/// is seen after many requests, a large one after few.
///
/// Bounded: kBlocksMax blocks. Thread-safety: one thread at a time.
class LeakDetector {
 public:
  static constexpr std::size_t kBlocksMax = 16;
  /// Fewer full blocks say nothing.
  static constexpr std::size_t kBlocksLeast = 8;
  /// Requests per block, at first.
  static constexpr std::uint64_t kBlockRequestsFirst = 2;
  /// Requests that warm a worker up: buffers are made when they are first needed.
  static constexpr std::uint64_t kWarmUpRequests = 2;
  /// Choice: less than this is not worth loading a model again.
  static constexpr Bytes kGrownLeast = 32_MiB;

  struct Leak {
    Bytes grown;                 // Over the blocks that were looked at.
    std::uint64_t requests = 0;  // In them.
  };

  /// What the worker holds now. `explained` is what has a cause that is not a leak: the cache that
  /// the ledger knows of, parked prefixes. `requests` is how many have ended since its start.
  /// REQUIRES: `requests` does not fall.
  void observe(Bytes anonymous, Bytes explained, std::uint64_t requests);

  /// Empty while there is none. Once found it stays: a leak does not heal.
  const std::optional<Leak>& leak() const { return leak_; }

 private:
  void close_block();
  void judge();

  std::array<Bytes, kBlocksMax> blocks_{};  // Least unexplained memory, oldest first.
  std::size_t size_ = 0;
  std::uint64_t block_requests_ = kBlockRequestsFirst;
  std::uint64_t block_ends_at_ = kWarmUpRequests + kBlockRequestsFirst;
  std::optional<Bytes> least_;  // Of the running block; empty until it has begun.
  std::optional<Leak> leak_;
};

}  // namespace pensieve::memory
