// All connections that are open now: how many there may be, and who has to go when one more comes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>

#include "gateway/connection.h"

namespace pensieve::gateway {

/// Keeps the number of connections within a bound, so that neither descriptors nor memory run out.
///
/// One that waits for its client can be closed at the cost of a new connection, and a client that
/// sends its request byte by byte waits; so the longest waiting gives way to the newest, those that
/// have never brought a whole request before all others. However many connections an attacker
/// holds, somebody who connects and asks at once is answered. Only where all are being answered is
/// the new one refused.
///
/// Ownership: borrows connections, from their first report to on_end(). Thread-safety: the io
/// thread only. Every call takes constant time, but those to for_each().
class ConnectionTable final : public ConnectionWatcher {
 public:
  struct Status {
    std::size_t open = 0;
    std::uint64_t evicted = 0;  // Closed while they waited, to make room. Since the start.
    std::uint64_t refused = 0;  // New ones that found no room.
  };

  /// REQUIRES: max > 0.
  explicit ConnectionTable(std::size_t max);

  /// Whether one more may be started; closes the longest waiting one where that is needed.
  bool make_room();
  /// Closes the longest waiting stranger, else the longest waiting. False where none waits.
  bool evict();

  std::size_t max() const { return max_; }
  Status status() const { return {entries_.size(), evicted_, refused_}; }
  void for_each(const std::function<void(Connection&)>& act) const;

  void on_waiting(Connection& connection) override;
  void on_answering(Connection& connection) override { move_to(answering_, connection); }
  void on_end(Connection& connection) override;

 private:
  using List = std::list<Connection*>;
  struct Entry {
    List* list;
    List::iterator place;
  };
  void move_to(List& list, Connection& connection);

  const std::size_t max_;
  List strangers_;  // Wait and have brought no whole request yet. The longest waiting first.
  List waiting_;    // Wait for their next request. The longest waiting first.
  List answering_;
  std::unordered_map<Connection*, Entry> entries_;
  std::uint64_t evicted_ = 0;
  std::uint64_t refused_ = 0;
};

/// How many connections the process may have open: at most `wanted`, and so many that descriptors
/// are left for workers, kernel files and the log.
std::size_t connections_that_fit(std::size_t wanted);

}  // namespace pensieve::gateway
