// What the prefix store knows of its entries, in memory: which there are, in which tier, how long
// the prefix is that they share with a prompt, and which of them is given up first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "worker/byte_budget.h"
#include "worker/prefix_key.h"

namespace pensieve::worker {

/// The saved state of a sequence in memory.
struct ParkedState {
  ByteBudget::Charge charge;  // The first member: given back after the rest is freed.
  std::vector<engine::Token> tokens;
  std::string state;
};

/// One prefix: parked, stored or both.
struct PrefixEntry {
  std::uint32_t tokens = 0;
  std::vector<std::uint64_t> marks;
  std::shared_ptr<const ParkedState> parked;  // Null: not in memory.
  std::optional<Bytes> stored;                // Of its file; empty: not on disk.
  std::uint64_t used = 0;                     // Larger is later.
  bool fetching = false;                      // Is being read from disk.
  bool writing = false;                       // Is being written to disk.
  bool leaving = false;  // Its place in memory is wanted: it goes once it is on disk.
  TimePoint write_due = TimePoint::max();  // Not written to disk before this.
  TimePoint drop_at = TimePoint::max();    // Leaving: given up where it is not on disk by then.

  /// Nobody else holds its memory, so that dropping it gives the memory back at once.
  bool droppable() const { return parked && parked.use_count() == 1; }
};

/// Not thread-safe; the store's lock guards it. Bounds: kEntriesMax entries; the least recently
/// used that is not in memory is forgotten for a new one (its file stays and counts).
class PrefixIndex {
 public:
  static constexpr std::size_t kEntriesMax = 4096;

  using Entries = std::map<std::string, PrefixEntry, std::less<>>;

  struct Match {
    std::string name;
    std::uint32_t tokens = 0;  // Shared with the prompt; at least so many where not parked.
    bool parked = false;
  };

  explicit PrefixIndex(const PrefixNames& names) : names_(names) {}

  Entries& entries() { return entries_; }
  const Entries& entries() const { return entries_; }
  PrefixEntry* find(std::string_view name);

  /// The entry under `name`, made where there is none; it counts as used now.
  PrefixEntry& touch(const std::string& name, std::span<const engine::Token> tokens);
  void touch(PrefixEntry& entry) { entry.used = ++counter_; }

  /// The longest prefix that shares more than `longer_than` tokens with `prompt`. Of two with the
  /// same length the parked one wins, then the shorter one: it needs fewer cells. Entries that
  /// are not parked count where `with_stored` says so.
  std::optional<Match> longest(std::span<const engine::Token> prompt, std::uint32_t longer_than,
                               bool with_stored) const;

  /// Names of entries whose tokens `tokens` begins with, and is longer than.
  std::vector<std::string> begun_by(std::span<const engine::Token> tokens) const;

  /// The parked entry whose tokens begin with all of `tokens`; null where there is none.
  PrefixEntry* parked_beginning_with(std::span<const engine::Token> tokens);

  /// The least recently used entry that can be dropped from memory; null where there is none.
  PrefixEntry* first_to_drop();

  /// Takes the entry out of memory; it is forgotten where it is not on disk either.
  void unpark(PrefixEntry& entry);

 private:
  Entries::iterator position(PrefixEntry& entry);

  const PrefixNames& names_;
  Entries entries_;
  std::uint64_t counter_ = 0;
};

}  // namespace pensieve::worker
