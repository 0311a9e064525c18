// HTTP/1.1 on one socket: reads requests within limits, watches for clients that hang up, writes.
#pragma once

#include <cstddef>
#include <memory>

#include <boost/asio/ip/tcp.hpp>

#include "base/clock.h"
#include "gateway/exchange.h"

namespace pensieve::gateway {

struct ConnectionLimits {
  std::size_t body_bytes_max = 32U << 20;  // Anthropic's limit for /v1/messages.
  std::size_t header_bytes_max = 64U << 10;
  Duration idle_max = std::chrono::seconds(75);     // Between requests.
  Duration request_max = std::chrono::seconds(30);  // From a request's first byte to its last; 408.
  Duration write_max = std::chrono::seconds(60);    // One write to a client that does not read.
};

/// A connection that serves itself until it ends; see start_connection().
class Connection {
 public:
  virtual ~Connection() = default;
  /// Closes at once where no request is being answered, else after the answer.
  virtual void close_when_idle() = 0;
  /// Closes now, whatever is going on.
  virtual void abort() = 0;
};

/// Is told what a connection is at. Called from the connection's executor.
class ConnectionWatcher {
 public:
  virtual ~ConnectionWatcher() = default;
  /// It waits for a request, or for the rest of one: its client's turn.
  virtual void on_waiting(Connection& connection) = 0;
  /// It answers a request: our turn.
  virtual void on_answering(Connection& connection) = 0;
  /// The last report; nothing may be done with it any more.
  virtual void on_end(Connection& connection) = 0;
};

/// Serves `socket` on its executor until the client, abort() or close_when_idle() ends it. The
/// connection keeps itself alive; `sink` and `watcher` must outlive it.
std::shared_ptr<Connection> start_connection(boost::asio::ip::tcp::socket socket, RequestSink& sink,
                                             ConnectionWatcher& watcher,
                                             const ConnectionLimits& limits);

}  // namespace pensieve::gateway
