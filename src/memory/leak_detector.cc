#include "memory/leak_detector.h"

#include <algorithm>

namespace pensieve::memory {
namespace {

/// Blocks that may be lower than the one before, and it is a leak all the same: a heap gives a part
/// back now and then.
constexpr std::size_t kFallsMax = 1;
/// The second half has to grow by this share of what the first did. One half of it, because a fall
/// may lie in it; a heap that fills up grows by far less.
constexpr std::uint64_t kSecondHalfDivisor = 2;

}  // namespace

void LeakDetector::observe(Bytes anonymous, Bytes explained, std::uint64_t requests) {
  if (leak_ || requests < kWarmUpRequests) return;
  while (requests >= block_ends_at_) {
    // A block without a look at it (many requests between two heartbeats) is like the next one.
    const Bytes unexplained = saturating_sub(anonymous, explained);
    if (!least_) least_ = unexplained;
    close_block();
    if (leak_) return;
    if (requests >= block_ends_at_ + kBlocksMax * block_requests_) block_ends_at_ = requests;
  }
  const Bytes unexplained = saturating_sub(anonymous, explained);
  least_ = least_ ? std::min(*least_, unexplained) : unexplained;
}

void LeakDetector::close_block() {
  blocks_[size_++] = *least_;
  least_.reset();
  block_ends_at_ += block_requests_;
  judge();
  if (size_ < kBlocksMax) return;
  for (std::size_t pair = 0; pair < kBlocksMax / 2; ++pair) {
    blocks_[pair] = std::min(blocks_[2 * pair], blocks_[2 * pair + 1]);
  }
  size_ /= 2;
  block_requests_ *= 2;
  block_ends_at_ += block_requests_ / 2;
}

void LeakDetector::judge() {
  if (size_ < kBlocksLeast) return;
  std::size_t falls = 0;
  for (std::size_t block = 1; block < size_; ++block) {
    if (blocks_[block] <= blocks_[block - 1]) ++falls;
  }
  const Bytes first = blocks_[0];
  const Bytes middle = blocks_[size_ / 2];
  const Bytes last = blocks_[size_ - 1];
  const Bytes grown = saturating_sub(last, first);
  const Bytes early = saturating_sub(middle, first);
  const Bytes late = saturating_sub(last, middle);
  if (falls > kFallsMax || grown < kGrownLeast) return;
  if (late.count() < early.count() / kSecondHalfDivisor) return;
  leak_ = Leak{grown, (size_ - 1) * block_requests_};
}

}  // namespace pensieve::memory
