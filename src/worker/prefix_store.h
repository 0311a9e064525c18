// What leaves the KV cache but may be wanted again: saved states in memory (parked) and on disk
// (stored), each within a budget of bytes, found again by the tokens that a prompt begins with.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "worker/byte_budget.h"
#include "worker/prefix_folder.h"
#include "worker/prefix_index.h"
#include "worker/prefix_stats.h"

namespace pensieve::worker {

/// The promises: memory is charged before it is taken and never above its budget; no call but
/// wait_written() and the destructor waits for the disk; nothing that the disk does is an error to
/// anybody, only a prefix that has to be computed again.
///
///            put()                  written            budget lowered, written
///   nothing ───────> parked ───────────────> parked and stored ──────────> stored
///      ^               │ no room, no disk         │ used again: put()        │ fetch()
///      └───────────────┘                          └── <──────────────────────┘
///
/// A disk that is full, read-only, slow or gone is *failing*, with the reason; one log line on
/// entry and one on exit. Meanwhile one file is tried every kRetryEvery, and what would have to be
/// written to leave memory is dropped. What is stored is still read, unless it was reading that
/// failed, or the disk is too slow.
///
/// Ownership: borrows the clock. Two threads of its own, one reads and one writes.
/// Thread-safety: any thread; put() from one thread at a time.
class PrefixStore {
 public:
  /// Shorter prefixes are cheaper to compute than to keep. Choice.
  static constexpr std::uint32_t kParkTokensLeast = 64;
  static constexpr std::uint32_t kStoreTokensLeast = 256;
  /// What is parked is written once it was left alone for so long: a conversation that goes on is
  /// written when it rests and not at every turn, which would wear out a disk.
  static constexpr Duration kRest = std::chrono::seconds(10);
  /// What has to leave memory and is not on disk by then is dropped.
  static constexpr Duration kSpillMax = std::chrono::seconds(2);
  /// A file that takes longer to write means that the disk is failing.
  static constexpr Duration kWriteMax = std::chrono::seconds(30);
  static constexpr Duration kFetchMax = std::chrono::seconds(10);
  static constexpr Duration kRetryEvery = std::chrono::seconds(30);
  static constexpr std::size_t kFetchesMax = 4;
  static constexpr std::size_t kParkedMax = 256;

  struct Options {
    std::string directory;  // Empty: nothing is stored, ever.
    std::string identity;   // What states depend on besides their tokens.
    /// A longer state serves for each of its own prefixes too, which are then given up for it.
    bool can_go_back = true;
    /// A fetch has ended, or the folder was read. From a thread of the store; must not call it.
    std::function<void()> changed = [] {};
  };

  struct Stats : PrefixStats {
    Bytes parked_bytes{};  // Charged: states, tokens, what is being fetched.
  };

  struct Cleared {
    std::uint32_t parked_tokens = 0;
    Bytes parked_bytes;
    Bytes stored_bytes;
  };

  /// Both budgets are zero until set_budgets().
  PrefixStore(const Clock& clock, Options options);
  /// Gives up what is being read or written; waits for the transfer of at most one chunk.
  ~PrefixStore();
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;

  /// Where memory above the new budget is not free at once (its states are not on disk yet), it is
  /// within kSpillMax and one chunk. A stored budget of zero: the disk is left alone.
  void set_budgets(Bytes parked_max, Bytes stored_max);

  enum class Keep : std::uint8_t {
    kParked,  // In memory; on disk as well once it has rested.
    kIfRoom,  // The same, but never at the cost of what is parked already.
    kStored,  // On disk, at once; in memory until then. Never at the cost of what is parked.
  };
  /// Fills an empty string with the state: at most the bytes that were announced.
  using CopyState = std::function<Result<void>(std::string&)>;

  /// Keeps the state of a sequence that holds `tokens`. `copy` is called only where there is room
  /// for `state_bytes` and the state is not here yet. Returns whether the prefix is kept.
  bool put(std::span<const engine::Token> tokens, Bytes state_bytes, Keep keep,
           const CopyState& copy);

  /// The best entry for a prompt; see PrefixIndex::longest().
  std::optional<PrefixIndex::Match> find(std::span<const engine::Token> prompt,
                                         std::uint32_t longer_than) const;

  /// The state, if it is in memory; it stays charged as long as somebody holds it.
  std::shared_ptr<const ParkedState> parked(std::string_view name);

  /// Takes it out of memory: it is in the KV cache now.
  void unpark(std::string_view name);

  /// Gives it up in both tiers: an engine could not use it.
  void forget(std::string_view name);

  /// Begins to read a stored state into memory. False: it will not be (no room, no disk, gone).
  bool fetch(std::string_view name);
  bool fetching(std::string_view name) const;

  /// False while the folder is still being read after the start: a stored prefix may yet be found.
  bool ready() const;

  void count_lookup(bool hit);

  /// Forgets what is parked, and removes all files where `stored_too`: soon, by the store's thread.
  Cleared clear(bool stored_too);

  /// Does what has become due. Call about every second.
  void tick();

  /// All that is parked is due for writing now.
  void write_all();

  /// Waits until nothing that is due is left to be written or read. False: `max` was not enough.
  bool wait_written(Duration max);

  Stats stats() const;

 private:
  struct Write {
    std::string name;
    std::shared_ptr<const ParkedState> state;
    TimePoint began;
  };

  static Bytes charge_for(std::size_t tokens, Bytes state_bytes);
  bool disk_usable() const;
  bool disk_readable() const;
  std::optional<ByteBudget::Charge> charge(Bytes bytes);
  std::optional<ByteBudget::Charge> room_for(std::span<const engine::Token> tokens, Bytes bytes,
                                             Keep keep);
  void drop(PrefixEntry& entry);
  bool leave(PrefixEntry& entry);
  void shrink();
  enum class Trouble : std::uint8_t { kWriting, kBoth };
  void disk_failed(const std::string& why, Trouble trouble);
  void disk_works();

  void read_files();
  void scan();
  void read_one(const std::string& name);
  void write_files();
  std::optional<Write> next_write() const;
  bool write_goes_on(const Write& write) const;
  Result<void> write_one(const Write& write);
  void written(const Write& write, const Result<void>& result);
  void give_up_begun_by(const Write& write);
  void remove_files(const std::vector<std::string>& names);
  void trim(Bytes most);
  void reconcile(const PrefixFolder::Contents& contents);

  const Clock& clock_;
  const Options options_;
  const PrefixFolder folder_;
  ByteBudget memory_;

  mutable std::mutex mutex_;
  std::condition_variable read_wake_;
  std::condition_variable write_wake_;
  std::condition_variable written_;
  // Guarded by mutex_, from here on.
  PrefixIndex index_;
  std::deque<std::string> fetches_;
  Bytes stored_max_;
  Bytes stored_bytes_;
  bool scanning_ = false;
  std::vector<std::string> removals_;  // Files to remove; each was an entry, so they are bounded.
  std::optional<Bytes> trim_to_;       // The folder has to be brought down to this.
  std::optional<Write> writing_;
  std::string failing_;  // Why the disk is failing; empty: it works.
  bool unreadable_ = false;
  TimePoint retry_at_{};
  Stats counters_;  // Only what is counted up.

  std::atomic<bool> stopping_ = false;
  std::thread reader_;
  std::thread writer_;
};

}  // namespace pensieve::worker
