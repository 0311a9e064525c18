// The two threads of the prefix store: what they read and write, and what a failing disk means.
#include <algorithm>
#include <set>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "worker/prefix_store.h"

namespace pensieve::worker {

void PrefixStore::disk_failed(const std::string& why, Trouble trouble) {
  retry_at_ = clock_.now() + kRetryEvery;
  unreadable_ = unreadable_ || trouble == Trouble::kBoth;
  if (!failing_.empty()) return;
  failing_ = why;
  log::warning("prefixes are not stored for now: {}", why);
  std::vector<PrefixEntry*> leaving;
  for (auto& [name, entry] : index_.entries()) {
    if (entry.leaving && entry.droppable()) leaving.push_back(&entry);
  }
  for (PrefixEntry* entry : leaving) drop(*entry);
}

void PrefixStore::disk_works() {
  if (failing_.empty()) return;
  failing_.clear();
  unreadable_ = false;
  log::info("prefixes are stored again");
}

void PrefixStore::read_files() {
  scan();
  std::unique_lock lock(mutex_);
  while (true) {
    read_wake_.wait(lock, [&] { return stopping_ || !fetches_.empty(); });
    if (stopping_) return;
    const std::string name = fetches_.front();
    lock.unlock();
    read_one(name);
    lock.lock();
    fetches_.pop_front();
    written_.notify_all();
    // A disk that works again, or a state whose file went while it was read: there is work.
    write_wake_.notify_all();
  }
}

/// Finds what earlier servers left.
void PrefixStore::scan() {
  Result<void> made = make_prefix_folder(folder_.path());
  Result<PrefixFolder::Contents> contents = made ? folder_.list() : std::unexpected(made.error());
  if (contents) reconcile(*contents);
  {
    const std::lock_guard lock(mutex_);
    if (!contents) disk_failed(contents.error().message, Trouble::kWriting);
    if (stored_max_ > Bytes() && stored_max_ < stored_bytes_) trim_to_ = stored_max_;
    scanning_ = false;
  }
  written_.notify_all();
  write_wake_.notify_all();
  options_.changed();
}

/// Makes the index agree with the folder: other servers write and remove there as well.
void PrefixStore::reconcile(const PrefixFolder::Contents& contents) {
  std::set<std::string, std::less<>> there;
  std::vector<const PrefixFolder::File*> unknown;
  {
    const std::lock_guard lock(mutex_);
    stored_bytes_ = contents.bytes;
    for (const PrefixFolder::File& file : contents.files) {
      if (!file.ours) continue;
      there.insert(file.name);
      PrefixEntry* const entry = index_.find(file.name);
      if (entry != nullptr && (entry->stored || entry->writing)) continue;
      unknown.push_back(&file);
    }
    std::vector<PrefixEntry*> gone;
    for (auto& [name, entry] : index_.entries()) {
      if (entry.stored && contents.complete && !there.contains(name)) gone.push_back(&entry);
    }
    for (PrefixEntry* entry : gone) {
      entry->stored.reset();
      if (!entry->parked) index_.unpark(*entry);
    }
  }
  // Least recently used first, so that the order of use is the same as before.
  for (const PrefixFolder::File* file : unknown) {
    const Result<PrefixHead> head =
        folder_.read_head(file->name, [&] { return !stopping_.load(); });
    if (stopping_) return;
    const std::lock_guard lock(mutex_);
    if (!head) {
      if (head.error().code == Code::kInvalidArgument) ++counters_.corrupt;
      continue;
    }
    index_.touch(file->name, head->tokens).stored = file->bytes;
  }
}

void PrefixStore::read_one(const std::string& name) {
  std::optional<ByteBudget::Charge> charged;
  Bytes most;
  {
    const std::lock_guard lock(mutex_);
    PrefixEntry* const entry = index_.find(name);
    if (entry != nullptr && entry->stored) {
      most = *entry->stored;
      charged = charge(charge_for(entry->tokens, most));
    }
  }
  const TimePoint began = clock_.now();
  const GoOn go_on = [&] { return !stopping_ && clock_.now() - began < kFetchMax; };
  std::string state;
  Result<PrefixHead> head = fail(Code::kOutOfMemory, "there is no room in memory");
  if (charged) head = folder_.read(name, most, state, go_on);
  {
    const std::lock_guard lock(mutex_);
    PrefixEntry* const entry = index_.find(name);
    if (entry != nullptr) entry->fetching = false;
    if (entry != nullptr && head) {
      index_.touch(*entry);
      if (unreadable_) disk_works();
      entry->parked = std::make_shared<ParkedState>(
          ParkedState{std::move(*charged), std::move(head->tokens), std::move(state)});
      shrink();  // The budget may have been lowered meanwhile.
    } else if (!head && head.error().code != Code::kOutOfMemory) {
      const Code code = head.error().code;
      if (code == Code::kInvalidArgument) {
        ++counters_.corrupt;
        log::warning("a stored prefix was damaged and is removed: {}", head.error().message);
      } else if (code != Code::kNotFound && !stopping_) {
        disk_failed(code == Code::kDeadlineExceeded ? "it is too slow" : head.error().message,
                    Trouble::kBoth);
      }
      // Its file is gone, or was removed for its damage.
      if (entry != nullptr && (code == Code::kInvalidArgument || code == Code::kNotFound)) {
        entry->stored.reset();
        if (!entry->parked) index_.unpark(*entry);
      }
    }
  }
  options_.changed();
}

/// What has to leave memory first, then what was used last: it is likely to be wanted again.
std::optional<PrefixStore::Write> PrefixStore::next_write() const {
  if (!disk_usable()) return std::nullopt;
  const PrefixEntry* best = nullptr;
  const std::string* best_name = nullptr;
  const TimePoint now = clock_.now();
  for (const auto& [name, entry] : index_.entries()) {
    if (!entry.parked || entry.stored || entry.writing || entry.write_due > now) continue;
    if (best == nullptr ||
        std::pair(entry.leaving, entry.used) > std::pair(best->leaving, best->used)) {
      best = &entry;
      best_name = &name;
    }
  }
  if (best == nullptr) return std::nullopt;
  return Write{*best_name, best->parked, now};
}

void PrefixStore::write_files() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!removals_.empty()) {
      const std::vector<std::string> names = removals_;
      lock.unlock();
      remove_files(names);
      lock.lock();
      removals_.erase(removals_.begin(),
                      removals_.begin() + static_cast<std::ptrdiff_t>(names.size()));
      continue;
    }
    if (trim_to_ && !scanning_) {
      const Bytes most = *trim_to_;
      lock.unlock();
      trim(most);
      lock.lock();
      if (trim_to_ == most) trim_to_.reset();
      continue;
    }
    std::optional<Write> write = scanning_ ? std::nullopt : next_write();
    if (!write) {
      written_.notify_all();
      write_wake_.wait(lock);
      continue;
    }
    index_.find(write->name)->writing = true;
    writing_ = write;
    lock.unlock();
    const Result<void> result = write_one(*write);
    lock.lock();
    writing_.reset();
    written(*write, result);
    if (result && options_.can_go_back) give_up_begun_by(*write);
  }
}

bool PrefixStore::write_goes_on(const Write& write) const {
  if (stopping_) return false;
  const std::lock_guard lock(mutex_);
  const auto found = index_.entries().find(write.name);
  TimePoint end = write.began + kWriteMax;
  if (found != index_.entries().end()) end = std::min(end, found->second.drop_at);
  return clock_.now() < end;
}

Result<void> PrefixStore::write_one(const Write& write) {
  Bytes most;
  {
    const std::lock_guard lock(mutex_);
    most = stored_max_;
  }
  if (Result<void> made = make_prefix_folder(folder_.path()); !made) return made;
  const ParkedState& parked = *write.state;
  const Bytes bytes =
      prefix_file_bytes(options_.identity, parked.tokens.size(), Bytes(parked.state.size()));
  Result<PrefixFolder::Contents> contents = folder_.make_room(most, bytes);
  if (!contents) return std::unexpected(contents.error());
  reconcile(*contents);
  return folder_.write(parked.tokens, parked.state, [&] { return write_goes_on(write); });
}

void PrefixStore::written(const Write& write, const Result<void>& result) {
  PrefixEntry* entry = index_.find(write.name);
  if (result) {
    disk_works();
    ++counters_.spilled;
    const ParkedState& parked = *write.state;
    const Bytes bytes =
        prefix_file_bytes(options_.identity, parked.tokens.size(), Bytes(parked.state.size()));
    stored_bytes_ = Bytes(stored_bytes_.count() + bytes.count());
    if (entry == nullptr) entry = &index_.touch(write.name, parked.tokens);
    entry->stored = bytes;
  } else if (!stopping_ && result.error().code != Code::kOutOfMemory) {
    const bool slow = result.error().code == Code::kDeadlineExceeded;
    disk_failed(slow ? "it is too slow" : result.error().message,
                slow ? Trouble::kBoth : Trouble::kWriting);
  }
  if (entry == nullptr) return;
  entry->writing = false;
  // Without room within the budget it would be tried for ever.
  entry->write_due =
      result || result.error().code == Code::kOutOfMemory ? TimePoint::max() : retry_at_;
  if (!entry->leaving) return;
  if (!result) ++counters_.dropped;
  index_.unpark(*entry);
}

/// The new file serves for its own prefixes too; theirs would only take up the budget.
void PrefixStore::give_up_begun_by(const Write& write) {
  for (const std::string& name : index_.begun_by(write.state->tokens)) {
    PrefixEntry& entry = *index_.find(name);
    if (!entry.stored || entry.fetching) continue;
    stored_bytes_ = saturating_sub(stored_bytes_, *entry.stored);
    entry.stored.reset();
    if (!entry.parked) index_.unpark(entry);
    removals_.push_back(name);
  }
}

void PrefixStore::remove_files(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    // What could not be removed is found, and counted, when the folder is looked at again.
    if (const Result<void> removed = folder_.remove(name); !removed) return;
  }
}

void PrefixStore::trim(Bytes most) {
  Result<PrefixFolder::Contents> left = folder_.make_room(most, Bytes());
  // What others are just writing may stand in the way; it is there, and counted.
  if (!left && left.error().code == Code::kOutOfMemory) left = folder_.list();
  if (left) {
    reconcile(*left);
  } else if (left.error().code != Code::kNotFound) {
    const std::lock_guard lock(mutex_);
    disk_failed(left.error().message, Trouble::kWriting);
  }
}

}  // namespace pensieve::worker
