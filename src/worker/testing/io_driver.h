#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/testing/fake_clock.h"

namespace pensieve::worker {

/// Runs an io_context in the test's own thread until something has really happened, with a bound.
class IoDriver {
 public:
  /// The clock's deadlines lie after those of the machine's, so that no timer runs out by itself.
  IoDriver() { clock.advance(steady_clock().now().time_since_epoch() + std::chrono::hours(1)); }

  /// Handlers run until `happened`; false where it has not after half a minute.
  bool run_until(const std::function<bool()>& happened) {
    const TimePoint bound = steady_clock().now() + std::chrono::seconds(30);
    while (!happened()) {
      if (steady_clock().now() > bound) return false;
      if (io.stopped()) io.restart();
      if (io.run_one_for(std::chrono::milliseconds(20)) > 0) ++handlers;
    }
    return true;
  }

  /// Runs until nothing is left to do: no coroutine waits for anything any more.
  bool run_dry() {
    const TimePoint bound = steady_clock().now() + std::chrono::seconds(30);
    do {
      io.restart();
      handlers += io.run_for(std::chrono::milliseconds(20));
    } while (!io.stopped() && steady_clock().now() < bound);
    return io.stopped();
  }

  /// Starts `operation`; the result is there once it has ended.
  template <class T>
  std::shared_ptr<std::optional<T>> begin(boost::asio::awaitable<T> operation) {
    auto result = std::make_shared<std::optional<T>>();
    boost::asio::co_spawn(io, std::move(operation),
                          [result](const std::exception_ptr& error, T value) {
                            PENSIEVE_CHECK(!error);
                            *result = std::move(value);
                          });
    return result;
  }

  /// The operation's result. REQUIRES: it ends within the bound.
  template <class T>
  T wait_for(boost::asio::awaitable<T> operation) {
    const auto result = begin(std::move(operation));
    PENSIEVE_CHECK(run_until([&] { return result->has_value(); }));
    return std::move(**result);
  }

  boost::asio::io_context io;
  FakeClock clock;
  std::size_t handlers = 0;  // Run so far.
};

}  // namespace pensieve::worker
