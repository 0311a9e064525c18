// Moves states between an engine's KV cache and the prefix store; knows when it is worth it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "worker/prefix_store.h"

namespace pensieve::worker {

/// Ownership: borrows all; must not outlive them. Thread-safety: the batch loop's thread only.
/// Errors: what cannot be kept or found is computed again; only restore() has an error to tell.
class PrefixExchange {
 public:
  /// A restore has to save at least so many tokens over what the cache holds already, and an eighth
  /// of those: they are shared there, and a restored state has cells of its own. Measured: a state
  /// of 3,000 tokens is copied in 4 ms, one token is computed in 2.5 ms; a file is read some ten
  /// times slower, and the request waits for it.
  static constexpr std::uint32_t kParkedGainLeast = 16;
  static constexpr std::uint32_t kStoredGainLeast = 128;
  static constexpr std::uint32_t with_gain(std::uint32_t in_cache, std::uint32_t least) {
    return in_cache + in_cache / 8 + least;
  }
  /// A request waits for its file as long as computing would take at 1,000 tokens a second, and
  /// for the folder to be read after a start.
  static constexpr Duration kFetchWaitPerToken = std::chrono::milliseconds(1);
  static constexpr Duration kFolderWait = std::chrono::seconds(1);

  /// How far one request has got in looking for its prefix. Starts empty.
  struct Search {
    bool over = false;
    std::string fetching;  // The entry that is being read for it.
    std::optional<TimePoint> until;
  };

  PrefixExchange(engine::Engine& engine, PrefixStore& store, const Clock& clock)
      : engine_(engine), store_(store), clock_(clock) {}

  /// Keeps a copy of what `sequence` holds, which is about to leave the cache. Whether it is kept.
  bool park(engine::SequenceId sequence, std::span<const engine::Token> held,
            PrefixStore::Keep keep = PrefixStore::Keep::kParked);

  /// Writes a copy to disk of what stays in the cache. False: not now (no room, no disk).
  bool store(engine::SequenceId sequence, std::span<const engine::Token> held);

  /// Whether a request should not start yet: a longer prefix than the cache's `in_cache` tokens is
  /// being read from disk. Asked again at each turn; bounded by the two waits above.
  bool must_wait(Search& search, std::span<const engine::Token> prompt, std::uint32_t in_cache);

  /// A parked state that beats the cache. It stays in memory as long as this is held.
  struct Found {
    std::string name;
    std::shared_ptr<const ParkedState> parked;
    std::uint32_t tokens = 0;  // Of the prompt, less its last: that is always processed.
    std::uint32_t cells() const { return static_cast<std::uint32_t>(parked->tokens.size()); }
  };

  /// The longest parked prefix of `prompt` that beats the cache's `in_cache` tokens by enough.
  std::optional<Found> find(std::span<const engine::Token> prompt, std::uint32_t in_cache);

  /// Makes `sequence` hold as much of what was found as the engine can, up to Found::tokens, and
  /// nothing else; returns how many tokens that are. A state that is in the cache as a whole is
  /// parked no longer. REQUIRES: cells() cells are free.
  /// Errors: the engine refuses the state, which is then forgotten; the sequence holds nothing.
  Result<std::uint32_t> restore(engine::SequenceId sequence, Found found);

 private:
  bool put(engine::SequenceId sequence, std::span<const engine::Token> held,
           PrefixStore::Keep keep);

  engine::Engine& engine_;
  PrefixStore& store_;
  const Clock& clock_;
};

}  // namespace pensieve::worker
