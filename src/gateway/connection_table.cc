#include "gateway/connection_table.h"

#include <sys/resource.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace pensieve::gateway {
namespace {

/// The gateway has some 15 open when idle; a worker that starts takes six more for a moment.
constexpr std::size_t kDescriptorsKept = 48;
/// Where a limit leaves less than that, connections go first all the same.
constexpr std::size_t kConnectionsLeast = 8;

}  // namespace

ConnectionTable::ConnectionTable(std::size_t max) : max_(max) {
  PENSIEVE_CHECK(max > 0);
}

bool ConnectionTable::make_room() {
  if (entries_.size() < max_ || evict()) return true;
  ++refused_;
  return false;
}

bool ConnectionTable::evict() {
  const List& list = strangers_.empty() ? waiting_ : strangers_;
  if (list.empty()) return false;
  Connection& longest = *list.front();
  // It reports its end later, once its coroutine has run; it counts no more from here on.
  on_end(longest);
  longest.abort();
  ++evicted_;
  return true;
}

void ConnectionTable::for_each(const std::function<void(Connection&)>& act) const {
  std::vector<Connection*> all;
  all.reserve(entries_.size());
  for (const auto& [connection, entry] : entries_) all.push_back(connection);
  for (Connection* connection : all) act(*connection);
}

void ConnectionTable::on_waiting(Connection& connection) {
  const auto found = entries_.find(&connection);
  const bool is_known = found != entries_.end() && found->second.list != &strangers_;
  move_to(is_known ? waiting_ : strangers_, connection);
}

void ConnectionTable::on_end(Connection& connection) {
  const auto found = entries_.find(&connection);
  if (found == entries_.end()) return;
  found->second.list->erase(found->second.place);
  entries_.erase(found);
}

void ConnectionTable::move_to(List& list, Connection& connection) {
  on_end(connection);
  list.push_back(&connection);
  entries_.emplace(&connection, Entry{&list, std::prev(list.end())});
}

std::size_t connections_that_fit(std::size_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::min(wanted, kConnectionsLeast);
  if (limit.rlim_cur == RLIM_INFINITY) return wanted;
  const std::size_t descriptors = limit.rlim_cur;
  const std::size_t left = descriptors > kDescriptorsKept ? descriptors - kDescriptorsKept : 0;
  return std::min(wanted, std::max(left, kConnectionsLeast));
}

}  // namespace pensieve::gateway
