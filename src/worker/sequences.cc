#include "worker/sequences.h"

#include <algorithm>
#include <utility>

namespace pensieve::worker {
namespace {

using engine::Token;

std::uint32_t size32(const std::vector<Token>& tokens) {
  return static_cast<std::uint32_t>(tokens.size());
}

std::uint32_t common_prefix(const std::vector<Token>& a, const std::vector<Token>& b) {
  const auto ends = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::uint32_t>(ends.first - a.begin());
}

}  // namespace

Running::Running(Job taken, std::uint64_t place)
    : job(std::move(taken)),
      tokens(job.prompt),
      order(place),
      answer(job.stop_sequences, std::move(job.parser)) {}

Sequences::Sequences(engine::Engine& engine, std::uint32_t count, PrefixExchange* exchange)
    : engine_(engine), exchange_(exchange), sequences_(count) {
  for (std::uint32_t i = 0; i < count; ++i) sequences_[i].id = i;
}

std::uint32_t Sequences::running() const {
  return static_cast<std::uint32_t>(
      std::count_if(sequences_.begin(), sequences_.end(),
                    [](const Sequence& s) { return s.running != nullptr; }));
}

std::uint32_t Sequences::held_tokens() const {
  std::uint32_t sum = 0;
  for (const Sequence& sequence : sequences_) sum += size32(sequence.held);
  return sum;
}

std::vector<engine::SequenceId> Sequences::running_ids() const {
  std::vector<engine::SequenceId> ids;
  for (const Sequence& sequence : sequences_) {
    if (sequence.running) ids.push_back(sequence.id);
  }
  return ids;
}

std::uint32_t Sequences::cells_of_running() const {
  return engine_.cells_used(running_ids());
}

std::uint64_t Sequences::pending_tokens() const {
  std::uint64_t sum = 0;
  for (const Sequence& sequence : sequences_) {
    if (sequence.running) sum += sequence.pending();
  }
  return sum;
}

Sequences::Match Sequences::best_match(const std::vector<Token>& tokens) {
  Match best;
  const std::uint32_t reusable = size32(tokens) - 1;
  for (Sequence& sequence : sequences_) {
    const std::uint32_t length =
        engine::whole_images(tokens, std::min(common_prefix(tokens, sequence.held), reusable));
    if (length > best.tokens) best = {&sequence, length};
  }
  return best;
}

std::uint32_t Sequences::new_cells(const std::vector<Token>& tokens, const Match& match) const {
  const bool reused = match.sequence != nullptr && (!match.sequence->running || engine_shares_);
  return size32(tokens) - (reused ? match.tokens : 0);
}

Sequence* Sequences::free_place() {
  Sequence* found = nullptr;
  for (Sequence& sequence : sequences_) {
    if (sequence.running) continue;
    if (sequence.held.empty()) return &sequence;
    if (found == nullptr || sequence.used_at < found->used_at) found = &sequence;
  }
  return found;
}

bool Sequences::must_wait(Running& running) {
  return exchange_ != nullptr && !running.search.over &&
         exchange_->must_wait(running.search, running.tokens, best_match(running.tokens).tokens);
}

/// Puts a parked prefix into a place if that beats what the cache holds; empty where there is none.
std::optional<Sequences::Placed> Sequences::restore(const std::vector<Token>& tokens) {
  const Match best = best_match(tokens);
  std::optional<PrefixExchange::Found> found = exchange_->find(tokens, best.tokens);
  if (!found || std::uint64_t{found->cells()} + cells_of_running() > engine_.cells()) {
    return std::nullopt;
  }
  Sequence* target = free_place();
  for (Sequence& sequence : sequences_) {
    // The second best in the cache is worth keeping there, if another place will do.
    if (target != best.sequence) break;
    if (!sequence.running) target = &sequence;
  }
  let_go(*target);
  for (Sequence* idle = oldest_idle(); idle != nullptr && engine_.cells_free() < found->cells();
       idle = oldest_idle()) {
    let_go(*idle);
  }
  const Result<std::uint32_t> kept = exchange_->restore(target->id, *std::move(found));
  if (!kept) return std::nullopt;
  target->held.assign(tokens.begin(), tokens.begin() + *kept);
  // Sliding windows may not have come back as far as what is still in the cache.
  if (*kept < best_match(tokens).tokens) return std::nullopt;
  return Placed{target, *kept};
}

/// What comes back from elsewhere, or what a sliding window leaves, may end inside a picture.
Sequences::Placed Sequences::place(const std::vector<Token>& tokens) {
  Placed placed = place_any(tokens);
  for (std::uint32_t whole = engine::whole_images(tokens, placed.kept); whole < placed.kept;
       whole = engine::whole_images(tokens, placed.kept)) {
    placed.kept = engine_.keep_prefix(placed.sequence->id, whole);
    PENSIEVE_CHECK(placed.kept <= whole);
    placed.sequence->held.resize(placed.kept);
  }
  return placed;
}

Sequences::Placed Sequences::place_any(const std::vector<Token>& tokens) {
  if (exchange_ != nullptr) {
    if (const std::optional<Placed> restored = restore(tokens)) return *restored;
  }
  const Match best = best_match(tokens);
  Sequence* target = free_place();
  PENSIEVE_CHECK(target != nullptr);
  const bool best_is_idle = best.sequence != nullptr && !best.sequence->running;
  // Continuing in place forgets the rest of what was held; worth it only when little is lost.
  if (best_is_idle && std::uint64_t{best.tokens} * 2 >= best.sequence->held.size()) {
    target = best.sequence;
  }
  if (target != best.sequence) {
    let_go(*target);
  } else if (best.sequence->held.size() - best.tokens >= PrefixStore::kParkTokensLeast) {
    keep_copy(*target);  // For the branch of the conversation that is cut off here.
  }
  std::uint32_t kept = keep(*target, best.sequence, best.tokens);
  if (kept == 0 && best_is_idle && best.sequence != target) {
    target = best.sequence;  // The engine cannot share, but it can continue in place.
    kept = keep(*target, best.sequence, best.tokens);
  }
  target->held.assign(tokens.begin(), tokens.begin() + kept);
  return {target, kept};
}

/// Makes `target` hold the first `tokens` tokens of `from` (null: nothing), or fewer.
std::uint32_t Sequences::keep(Sequence& target, Sequence* from, std::uint32_t tokens) {
  std::uint32_t kept = 0;
  if (from == &target || from == nullptr) {
    kept = engine_.keep_prefix(target.id, tokens);
  } else {
    kept = engine_.share_prefix(from->id, target.id, tokens);
    engine_shares_ = kept > 0;
    if (kept == 0) engine_.keep_prefix(target.id, 0);
  }
  PENSIEVE_CHECK(kept <= tokens);
  target.held.resize(std::min<std::size_t>(target.held.size(), kept));
  return kept;
}

Sequence* Sequences::oldest_idle() {
  Sequence* oldest = nullptr;
  for (Sequence& sequence : sequences_) {
    if (sequence.running || sequence.held.empty()) continue;
    if (oldest == nullptr || sequence.used_at < oldest->used_at) oldest = &sequence;
  }
  return oldest;
}

Sequence* Sequences::newest_running() {
  Sequence* newest = nullptr;
  for (Sequence& sequence : sequences_) {
    if (!sequence.running) continue;
    if (newest == nullptr || sequence.running->order > newest->running->order) newest = &sequence;
  }
  return newest;
}

std::uint32_t Sequences::let_go(Sequence& sequence) {
  PENSIEVE_CHECK(!sequence.running);
  const std::uint32_t dropped = size32(sequence.held);
  keep_copy(sequence);
  engine_.keep_prefix(sequence.id, 0);
  sequence.held.clear();
  return dropped;
}

std::uint32_t Sequences::let_go_until(std::uint32_t cells) {
  std::uint32_t dropped = 0;
  for (Sequence* idle = oldest_idle(); idle != nullptr && cells_used() > cells;
       idle = oldest_idle()) {
    dropped += let_go(*idle);
  }
  return dropped;
}

void Sequences::keep_copy(const Sequence& sequence) {
  if (exchange_ != nullptr && !sequence.held.empty()) exchange_->park(sequence.id, sequence.held);
}

std::uint32_t Sequences::forget_idle() {
  std::uint32_t dropped = 0;
  for (Sequence& sequence : sequences_) {
    if (sequence.running) continue;
    dropped += size32(sequence.held);
    engine_.keep_prefix(sequence.id, 0);
    sequence.held.clear();
  }
  return dropped;
}

void Sequences::rest(TimePoint now) {
  if (exchange_ == nullptr || (looked_at_ && now - *looked_at_ < kLookEvery)) return;
  looked_at_ = now;
  if (running() > 0) {
    for (Sequence& sequence : sequences_) {
      if (sequence.running || now - sequence.idle_since < kParkIdleAfter) continue;
      if (!exchange_->park(sequence.id, sequence.held, PrefixStore::Keep::kIfRoom)) continue;
      engine_.keep_prefix(sequence.id, 0);
      sequence.held.clear();
      return;
    }
  }
  for (Sequence& sequence : sequences_) {
    if (sequence.running || sequence.is_stored || now - sequence.idle_since < PrefixStore::kRest) {
      continue;
    }
    if (sequence.held.size() < PrefixStore::kStoreTokensLeast) continue;
    sequence.is_stored = exchange_->store(sequence.id, sequence.held);
    return;
  }
}

bool Sequences::is_restless() const {
  return exchange_ != nullptr &&
         std::any_of(sequences_.begin(), sequences_.end(), [](const Sequence& sequence) {
           return !sequence.running && !sequence.is_stored &&
                  sequence.held.size() >= PrefixStore::kStoreTokensLeast;
         });
}

bool Sequences::store_one() {
  if (exchange_ == nullptr) return false;
  Sequence* latest = nullptr;
  for (Sequence& sequence : sequences_) {
    if (sequence.running || sequence.is_stored) continue;
    if (sequence.held.size() < PrefixStore::kStoreTokensLeast) continue;
    if (latest == nullptr || sequence.used_at > latest->used_at) latest = &sequence;
  }
  if (latest == nullptr) return false;
  latest->is_stored = exchange_->store(latest->id, latest->held);
  return latest->is_stored;
}

void Sequences::confirm_held() {
  for (Sequence& sequence : sequences_) {
    const std::uint32_t kept = engine_.keep_prefix(sequence.id, size32(sequence.held));
    PENSIEVE_CHECK(kept <= sequence.held.size());
    sequence.held.resize(kept);
  }
}

}  // namespace pensieve::worker
