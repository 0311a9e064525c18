// Compiled grammars that are kept for those who ask again, and what all of them take.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/bytes.h"

namespace pensieve::engine {

/// A part of what all grammars may take; given back when its owner ends.
class GrammarCharge {
 public:
  GrammarCharge(std::shared_ptr<std::atomic<std::uint64_t>> sum, std::uint64_t bytes)
      : sum_(std::move(sum)), bytes_(bytes) {
    *sum_ += bytes_;
  }
  ~GrammarCharge() {
    if (sum_) *sum_ -= bytes_;
  }
  GrammarCharge(GrammarCharge&& other) noexcept = default;  // Leaves no sum behind.
  GrammarCharge& operator=(GrammarCharge&&) = delete;

 private:
  std::shared_ptr<std::atomic<std::uint64_t>> sum_;
  std::uint64_t bytes_;
};

/// All charges together are at most `most`. Grammars that nobody uses make room, the least recently
/// used first; one that is in use is never let go, and counts until its last user is gone.
///
/// Thread-safety: any thread.
template <class Grammar>
class KeptGrammars {
 public:
  explicit KeptGrammars(Bytes most) : most_(most) {}

  /// Null where `key` is not kept.
  std::shared_ptr<const Grammar> find(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&key](const Entry& entry) { return entry.key == key; });
    if (found == entries_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found);
    return found->grammar;
  }

  /// Keeps what `make` makes of a charge for a grammar of `size` and its key. Null where those in
  /// use leave no room: then `make` was not called.
  template <class Make>
  std::shared_ptr<const Grammar> add(std::string key, Bytes size, Make make) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t bytes = size.count() + key.size() + sizeof(Entry);
    if (!make_room(bytes)) return nullptr;
    std::shared_ptr<const Grammar> grammar = make(GrammarCharge(sum_, bytes));
    entries_.push_front({std::move(key), grammar});
    return grammar;
  }

  Bytes held() const { return Bytes(sum_->load()); }

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const Grammar> grammar;
  };

  /// Under the lock: nobody gets a grammar from here meanwhile, so that one with a single owner
  /// stays one.
  bool make_room(std::uint64_t bytes) {
    if (bytes > most_.count()) return false;
    for (auto entry = entries_.end(); *sum_ > most_.count() - bytes && entry != entries_.begin();) {
      --entry;
      if (entry->grammar.use_count() == 1) entry = entries_.erase(entry);
    }
    return *sum_ <= most_.count() - bytes;
  }

  const Bytes most_;
  const std::shared_ptr<std::atomic<std::uint64_t>> sum_ =
      std::make_shared<std::atomic<std::uint64_t>>(0);
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // Guarded by mutex_; the last used is in front.
};

}  // namespace pensieve::engine
