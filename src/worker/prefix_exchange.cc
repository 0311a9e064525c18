#include "worker/prefix_exchange.h"

#include <algorithm>

#include "base/log.h"

namespace pensieve::worker {

using engine::SequenceId;
using engine::Token;

bool PrefixExchange::put(SequenceId sequence, std::span<const Token> held, PrefixStore::Keep keep) {
  if (held.size() < PrefixStore::kParkTokensLeast) return false;
  return store_.put(held, engine_.state_bytes(sequence), keep,
                    [&](std::string& out) { return engine_.save_state(sequence, out); });
}

bool PrefixExchange::park(SequenceId sequence, std::span<const Token> held,
                          PrefixStore::Keep keep) {
  return put(sequence, held, keep);
}

bool PrefixExchange::store(SequenceId sequence, std::span<const Token> held) {
  return put(sequence, held, PrefixStore::Keep::kStored);
}

bool PrefixExchange::must_wait(Search& search, std::span<const Token> prompt,
                               std::uint32_t in_cache) {
  if (search.over) return false;
  const TimePoint now = clock_.now();
  if (!store_.ready()) {
    if (!search.until) search.until = now + kFolderWait;
    if (now < *search.until) return true;
  }
  if (search.fetching.empty()) {
    const auto match = store_.find(prompt, with_gain(in_cache, kStoredGainLeast) - 1);
    if (match && !match->parked && store_.fetch(match->name)) {
      search.fetching = match->name;
      search.until = now + std::min<Duration>(PrefixStore::kFetchMax,
                                              (match->tokens - in_cache) * kFetchWaitPerToken);
      return true;
    }
  } else if (store_.fetching(search.fetching) && now < *search.until) {
    return true;
  }
  search.over = true;
  return false;
}

std::optional<PrefixExchange::Found> PrefixExchange::find(std::span<const Token> prompt,
                                                          std::uint32_t in_cache) {
  const auto match = store_.find(prompt, with_gain(in_cache, kParkedGainLeast) - 1);
  Found found;
  if (match && match->parked) {
    // The last token is always processed: its logits give the first new one.
    const auto all_but_last = static_cast<std::uint32_t>(prompt.size()) - 1;
    found = {match->name, store_.parked(match->name), std::min(match->tokens, all_but_last)};
  }
  if (found.parked && found.tokens >= with_gain(in_cache, kParkedGainLeast)) return found;
  // A prompt that the cache knows half of is no miss of the store.
  if (prompt.size() >= PrefixStore::kParkTokensLeast && in_cache * 2 < prompt.size()) {
    store_.count_lookup(false);
  }
  return std::nullopt;
}

Result<std::uint32_t> PrefixExchange::restore(SequenceId sequence, Found found) {
  const std::uint32_t all = found.cells();
  if (Result<void> restored = engine_.restore_state(sequence, found.parked->state, all);
      !restored) {
    if (restored.error().code != Code::kOutOfMemory) {
      log::warning("a kept state of {} tokens is of no use: {}", all, restored.error().message);
      store_.forget(found.name);
    }
    return std::unexpected(restored.error());
  }
  store_.count_lookup(true);
  found.parked.reset();
  if (found.tokens + 1 >= all && engine_.can_go_back()) store_.unpark(found.name);
  // Sliding windows cannot go back as far as one may wish; the engine says what there really is.
  return engine_.keep_prefix(sequence, found.tokens);
}

}  // namespace pensieve::worker
