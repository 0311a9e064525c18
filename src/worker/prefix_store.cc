#include "worker/prefix_store.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "base/log.h"

namespace pensieve::worker {
namespace {

using engine::Token;

/// What an entry takes beside state and tokens: the entry itself, its marks, the allocator's share.
constexpr std::uint64_t kEntryBytes = 4096;

}  // namespace

Bytes PrefixStore::charge_for(std::size_t tokens, Bytes state_bytes) {
  return Bytes(state_bytes.count() + tokens * (sizeof(Token) + 1) + kEntryBytes);
}

PrefixStore::PrefixStore(const Clock& clock, Options options)
    : clock_(clock),
      options_(std::move(options)),
      folder_(options_.directory, options_.identity),
      index_(folder_.names()),
      scanning_(!options_.directory.empty()) {
  if (!scanning_) return;
  reader_ = std::thread([this] { read_files(); });
  writer_ = std::thread([this] { write_files(); });
}

PrefixStore::~PrefixStore() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  read_wake_.notify_all();
  write_wake_.notify_all();
  if (reader_.joinable()) reader_.join();
  if (writer_.joinable()) writer_.join();
}

bool PrefixStore::disk_usable() const {
  return !options_.directory.empty() && stored_max_ > Bytes() &&
         (failing_.empty() || clock_.now() >= retry_at_);
}

bool PrefixStore::disk_readable() const {
  return !options_.directory.empty() && stored_max_ > Bytes() &&
         (!unreadable_ || clock_.now() >= retry_at_);
}

void PrefixStore::set_budgets(Bytes parked_max, Bytes stored_max) {
  const std::lock_guard lock(mutex_);
  memory_.set_limit(parked_max);
  if (stored_max > Bytes() && stored_max < stored_bytes_) trim_to_ = stored_max;
  stored_max_ = stored_max;
  shrink();
  write_wake_.notify_all();
}

/// Least recently used first, until what stays and is not on its way out fits the budget.
void PrefixStore::shrink() {
  std::vector<PrefixEntry*> entries;
  Bytes leaving;
  for (auto& [name, entry] : index_.entries()) {
    if (!entry.parked) continue;
    if (entry.leaving) {
      if (memory_.used() > memory_.limit()) {
        entry.drop_at = std::min(entry.drop_at, clock_.now() + kSpillMax);
      }
      leaving = Bytes(leaving.count() + entry.parked->charge.bytes().count());
    } else {
      entries.push_back(&entry);
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const PrefixEntry* a, const PrefixEntry* b) { return a->used < b->used; });
  for (PrefixEntry* entry : entries) {
    if (saturating_sub(memory_.used(), leaving) <= memory_.limit()) return;
    const Bytes bytes = entry->parked->charge.bytes();
    if (!leave(*entry)) leaving = Bytes(leaving.count() + bytes.count());
  }
}

/// Out of memory, at once where it is on disk or will not be; returns whether it is gone. Else when
/// it has been written, or when who holds it lets go.
bool PrefixStore::leave(PrefixEntry& entry) {
  if (entry.droppable()) {
    if (entry.stored || !disk_usable() || entry.tokens < kStoreTokensLeast) {
      drop(entry);
      return true;
    }
  }
  entry.leaving = true;
  entry.write_due = clock_.now();
  entry.drop_at = clock_.now() + kSpillMax;
  return false;
}

void PrefixStore::drop(PrefixEntry& entry) {
  if (!entry.stored) ++counters_.dropped;
  index_.unpark(entry);
}

std::optional<ByteBudget::Charge> PrefixStore::charge(Bytes bytes) {
  // Nothing is dropped in vain: what somebody holds cannot be.
  Bytes staying = memory_.used();
  for (const auto& [name, entry] : index_.entries()) {
    if (entry.droppable()) staying = saturating_sub(staying, entry.parked->charge.bytes());
  }
  const std::optional<Bytes> least = checked_add(staying, bytes);
  if (!least || *least > memory_.limit()) return std::nullopt;
  while (true) {
    if (auto taken = memory_.try_charge(bytes)) return taken;
    PrefixEntry* const first = index_.first_to_drop();
    if (first == nullptr) return std::nullopt;
    drop(*first);
  }
}

std::optional<ByteBudget::Charge> PrefixStore::room_for(std::span<const Token> tokens, Bytes bytes,
                                                        Keep keep) {
  if (bytes > memory_.limit()) return std::nullopt;
  if (keep == Keep::kStored) return memory_.try_charge(bytes);
  if (options_.can_go_back) {
    for (const std::string& name : index_.begun_by(tokens)) {
      PrefixEntry& shorter = *index_.find(name);
      if (shorter.droppable()) index_.unpark(shorter);
    }
  }
  if (keep == Keep::kIfRoom) return memory_.try_charge(bytes);
  std::size_t parked = 0;
  for (const auto& [name, entry] : index_.entries()) parked += entry.parked ? 1 : 0;
  PrefixEntry* const first = parked < kParkedMax ? nullptr : index_.first_to_drop();
  if (first != nullptr) drop(*first);
  return charge(bytes);
}

bool PrefixStore::put(std::span<const Token> tokens, Bytes state_bytes, Keep keep,
                      const CopyState& copy) {
  if (tokens.size() < kParkTokensLeast) return false;
  const std::string name = folder_.names().name(tokens);
  std::unique_lock lock(mutex_);
  PrefixEntry* const known =
      options_.can_go_back ? index_.parked_beginning_with(tokens) : index_.find(name);
  if (known != nullptr && known->parked) {
    index_.touch(*known);
    if (keep != Keep::kStored && known->leaving) {
      known->leaving = false;
      known->drop_at = TimePoint::max();
      shrink();
    }
    return true;
  }
  const bool on_disk = known != nullptr || index_.find(name) != nullptr;
  if (keep == Keep::kStored) {
    if (on_disk) return true;
    const Bytes file = prefix_file_bytes(options_.identity, tokens.size(), state_bytes);
    if (!disk_usable() || tokens.size() < kStoreTokensLeast || file > stored_max_) return false;
  }
  auto charge = room_for(tokens, charge_for(tokens.size(), state_bytes), keep);
  if (!charge) {
    if (!on_disk && keep == Keep::kParked) ++counters_.dropped;
    return on_disk;
  }
  lock.unlock();
  auto parked = std::make_shared<ParkedState>(
      ParkedState{std::move(*charge), {tokens.begin(), tokens.end()}, {}});
  const Result<void> copied = copy(parked->state);
  if (!copied || parked->state.size() > state_bytes.count()) {
    log::warning("a state of {} tokens is not kept: {}", tokens.size(),
                 copied ? "it is larger than announced" : copied.error().message);
    return false;
  }
  lock.lock();
  PrefixEntry& entry = index_.touch(name, tokens);
  entry.parked = std::move(parked);
  entry.leaving = keep == Keep::kStored && !entry.stored;
  const bool storable = tokens.size() >= kStoreTokensLeast && !entry.stored;
  entry.drop_at = TimePoint::max();
  entry.write_due =
      !storable ? TimePoint::max() : clock_.now() + (entry.leaving ? Duration() : kRest);
  if (entry.leaving) entry.drop_at = clock_.now() + kWriteMax;
  // The budget may have been lowered meanwhile.
  shrink();
  lock.unlock();
  write_wake_.notify_all();
  return true;
}

std::optional<PrefixIndex::Match> PrefixStore::find(std::span<const Token> prompt,
                                                    std::uint32_t longer_than) const {
  const std::lock_guard lock(mutex_);
  return index_.longest(prompt, longer_than, disk_readable());
}

std::shared_ptr<const ParkedState> PrefixStore::parked(std::string_view name) {
  const std::lock_guard lock(mutex_);
  PrefixEntry* const entry = index_.find(name);
  if (entry == nullptr || !entry->parked) return nullptr;
  index_.touch(*entry);
  return entry->parked;
}

void PrefixStore::unpark(std::string_view name) {
  const std::lock_guard lock(mutex_);
  PrefixEntry* const entry = index_.find(name);
  if (entry != nullptr && entry->droppable()) index_.unpark(*entry);
}

void PrefixStore::forget(std::string_view name) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = index_.entries().find(name);
    if (found == index_.entries().end()) return;
    if (found->second.stored) removals_.push_back(found->first);
    index_.entries().erase(found);
  }
  write_wake_.notify_all();
}

bool PrefixStore::fetch(std::string_view name) {
  {
    const std::lock_guard lock(mutex_);
    PrefixEntry* const entry = index_.find(name);
    if (entry == nullptr || !entry->stored || entry->parked) return false;
    if (entry->fetching) return true;
    if (!disk_readable() || fetches_.size() >= kFetchesMax ||
        charge_for(entry->tokens, *entry->stored) > memory_.limit()) {
      return false;
    }
    entry->fetching = true;
    fetches_.emplace_back(name);
  }
  read_wake_.notify_all();
  return true;
}

bool PrefixStore::fetching(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = index_.entries().find(name);
  return found != index_.entries().end() && found->second.fetching;
}

bool PrefixStore::ready() const {
  const std::lock_guard lock(mutex_);
  return !scanning_ || stored_max_ == Bytes();
}

void PrefixStore::count_lookup(bool hit) {
  const std::lock_guard lock(mutex_);
  ++(hit ? counters_.hits : counters_.misses);
}

PrefixStore::Cleared PrefixStore::clear(bool stored_too) {
  Cleared cleared;
  {
    const std::lock_guard lock(mutex_);
    const Bytes before = memory_.used();
    std::vector<PrefixEntry*> entries;
    for (auto& [name, entry] : index_.entries()) {
      if (entry.droppable()) entries.push_back(&entry);
    }
    for (PrefixEntry* entry : entries) {
      cleared.parked_tokens += entry->tokens;
      index_.unpark(*entry);
    }
    cleared.parked_bytes = saturating_sub(before, memory_.used());
    if (stored_too && !options_.directory.empty()) {
      cleared.stored_bytes = stored_bytes_;
      trim_to_ = Bytes();
    }
  }
  write_wake_.notify_all();
  return cleared;
}

void PrefixStore::tick() {
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.now();
    // A system call that does not come back: only from here it can be seen.
    if (writing_ && now - writing_->began > kWriteMax)
      disk_failed("it is too slow", Trouble::kBoth);
    std::vector<PrefixEntry*> late;
    for (auto& [name, entry] : index_.entries()) {
      if (entry.leaving && now >= entry.drop_at && entry.droppable()) late.push_back(&entry);
    }
    for (PrefixEntry* entry : late) drop(*entry);
  }
  write_wake_.notify_all();
}

void PrefixStore::write_all() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [name, entry] : index_.entries()) {
      if (entry.parked && !entry.stored && entry.tokens >= kStoreTokensLeast) {
        entry.write_due = clock_.now();
      }
    }
  }
  write_wake_.notify_all();
}

bool PrefixStore::wait_written(Duration max) {
  std::unique_lock lock(mutex_);
  write_wake_.notify_all();  // What has become due by the time alone is only seen when looked at.
  return written_.wait_for(lock, max, [&] {
    return !writing_ && !trim_to_ && removals_.empty() && !scanning_ && fetches_.empty() &&
           !next_write();
  });
}

PrefixStore::Stats PrefixStore::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = counters_;
  stats.parked_bytes = memory_.used();
  stats.stored_bytes = stored_bytes_;
  for (const auto& [name, entry] : index_.entries()) {
    stats.parked += entry.parked ? 1 : 0;
    stats.stored += entry.stored ? 1 : 0;
  }
  stats.disk_failing = !failing_.empty();
  return stats;
}

}  // namespace pensieve::worker
