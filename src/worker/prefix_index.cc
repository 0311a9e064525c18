#include "worker/prefix_index.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace pensieve::worker {

using engine::Token;

PrefixEntry* PrefixIndex::find(std::string_view name) {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

PrefixEntry& PrefixIndex::touch(const std::string& name, std::span<const Token> tokens) {
  const auto [place, is_new] = entries_.try_emplace(name);
  PrefixEntry& entry = place->second;
  if (is_new) {
    entry.tokens = static_cast<std::uint32_t>(tokens.size());
    entry.marks = prefix_marks(tokens);
  }
  touch(entry);
  if (entries_.size() > kEntriesMax) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      const PrefixEntry& other = it->second;
      if (it == place || other.parked || other.fetching || other.writing) continue;
      if (oldest == entries_.end() || other.used < oldest->second.used) oldest = it;
    }
    if (oldest != entries_.end()) entries_.erase(oldest);
  }
  return entry;
}

std::optional<PrefixIndex::Match> PrefixIndex::longest(std::span<const Token> prompt,
                                                       std::uint32_t longer_than,
                                                       bool with_stored) const {
  const std::vector<std::uint64_t> marks = prefix_marks(prompt);
  std::optional<Match> best;
  std::uint32_t best_tokens_of = 0;
  for (const auto& [name, entry] : entries_) {
    if (!entry.parked && !(with_stored && entry.stored)) continue;
    std::uint32_t common = common_marked_tokens(marks, entry.marks);
    if (entry.parked) {
      // Marks only say whole blocks; what follows them is compared.
      const std::span<const Token> held = entry.parked->tokens;
      const auto ends =
          std::mismatch(prompt.begin() + common, prompt.end(), held.begin() + common, held.end());
      common = static_cast<std::uint32_t>(ends.first - prompt.begin());
    } else if (common + kMarkTokens > entry.tokens && entry.tokens <= prompt.size() &&
               names_.name(prompt.first(entry.tokens)) == name) {
      common = entry.tokens;
    }
    if (common <= longer_than) continue;
    const auto rank = [](std::uint32_t shared, bool parked, std::uint32_t tokens) {
      return std::tuple(shared, parked, ~tokens);
    };
    if (!best || rank(common, entry.parked != nullptr, entry.tokens) >
                     rank(best->tokens, best->parked, best_tokens_of)) {
      best = Match{name, common, entry.parked != nullptr};
      best_tokens_of = entry.tokens;
    }
  }
  return best;
}

std::vector<std::string> PrefixIndex::begun_by(std::span<const Token> tokens) const {
  const std::vector<std::uint64_t> marks = prefix_marks(tokens);
  std::vector<std::string> found;
  for (const auto& [name, entry] : entries_) {
    if (entry.tokens >= tokens.size()) continue;
    if (common_marked_tokens(marks, entry.marks) + kMarkTokens <= entry.tokens) continue;
    if (names_.name(tokens.first(entry.tokens)) == name) found.push_back(name);
  }
  return found;
}

PrefixEntry* PrefixIndex::parked_beginning_with(std::span<const Token> tokens) {
  for (auto& [name, entry] : entries_) {
    if (!entry.parked || entry.tokens < tokens.size()) continue;
    const std::vector<Token>& held = entry.parked->tokens;
    if (std::equal(tokens.begin(), tokens.end(), held.begin())) return &entry;
  }
  return nullptr;
}

PrefixEntry* PrefixIndex::first_to_drop() {
  PrefixEntry* first = nullptr;
  for (auto& [name, entry] : entries_) {
    if (entry.droppable() && (first == nullptr || entry.used < first->used)) first = &entry;
  }
  return first;
}

void PrefixIndex::unpark(PrefixEntry& entry) {
  entry.parked.reset();
  entry.leaving = false;
  entry.write_due = TimePoint::max();
  entry.drop_at = TimePoint::max();
  if (!entry.stored) entries_.erase(position(entry));
}

PrefixIndex::Entries::iterator PrefixIndex::position(PrefixEntry& entry) {
  return std::find_if(entries_.begin(), entries_.end(),
                      [&](const auto& item) { return &item.second == &entry; });
}

}  // namespace pensieve::worker
