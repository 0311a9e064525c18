#include "gateway/server.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/timer.h"
#include "gateway/connection_table.h"
#include "gateway/disk_thread.h"
#include "gateway/memory_log.h"
#include "gateway/pressure_control.h"
#include "memory/ledger.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

/// How often the drain looks whether all is done. Choice: nobody notices 20 ms at the end.
constexpr Duration kDrainInterval = std::chrono::milliseconds(20);
/// accept() that fails for lack of descriptors would spin otherwise.
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);
/// How long clients whose request is cut off may take to read that.
constexpr Duration kTellMax = std::chrono::milliseconds(500);
/// A worker is killed 2 s after it was asked to stop, and reaped within 2 s more.
constexpr Duration kWorkerStopGrace = std::chrono::seconds(2);
constexpr Duration kWorkerEndMax = std::chrono::seconds(5);
constexpr Duration kRunDryMax = std::chrono::seconds(2);
constexpr int kExitBySecondSignal = 130;  // As shells say it for SIGINT.

class Server {
 public:
  Server(memory::MemorySource& source, const Clock& clock, const ServerOptions& options)
      : options_(options),
        clock_(clock),
        io_(1),
        disk_(io_.get_executor()),
        monitor_(source, options.signals.get(), clock, options.monitor),
        governor_(options.governor),
        pool_(io_.get_executor(), clock, monitor_, ledger_, options.pool),
        service_(pool_, monitor_, ledger_, governor_, clock, options.service,
                 [this] { begin_drain("a stop request"); }),
        pressure_(
            governor_, monitor_, pool_, service_, clock,
            [this] { begin_drain("an emergency that lasts, as [memory] on_emergency says"); }),
        acceptor_(io_),
        connections_(connections_that_fit(options.connections_max)),
        signals_(io_),
        sample_timer_(io_) {}

  std::expected<void, StartFailure> run(const std::function<void(const Started&)>& on_started);

 private:
  void keep_key_use();
  void open_batches();
  std::expected<void, StartFailure> listen();
  asio::awaitable<void> load_model();
  asio::awaitable<void> accept_connections();
  asio::awaitable<void> sample_memory();
  asio::awaitable<void> wait_for_signals();
  asio::awaitable<void> drain();
  void begin_drain(std::string_view why);
  void note_crowd(bool full);

  const ServerOptions options_;
  const Clock& clock_;
  asio::io_context io_;
  DiskThread disk_;
  memory::Monitor monitor_;
  memory::Ledger ledger_;
  memory::Governor governor_;
  model::Pool pool_;
  Service service_;
  PressureControl pressure_;
  tcp::acceptor acceptor_;
  ConnectionTable connections_;
  asio::signal_set signals_;
  Timer sample_timer_;
  std::function<void(const Started&)> on_started_;
  std::optional<StartFailure> failure_;
  bool crowded_ = false;  // As logged: new connections come at the cost of others.
  MemoryLog memory_log_;
  bool draining_ = false;
  bool drained_ = false;
};

std::expected<void, StartFailure> Server::run(
    const std::function<void(const Started&)>& on_started) {
  on_started_ = on_started;
  monitor_.sample();
  if (auto listening = listen(); !listening) return listening;
  service_.show_connections(connections_);
  keep_key_use();
  open_batches();
  boost::system::error_code ignored;
  signals_.add(SIGINT, ignored);
  signals_.add(SIGTERM, ignored);
  asio::co_spawn(io_, wait_for_signals(), asio::detached);
  asio::co_spawn(io_, sample_memory(), asio::detached);
  asio::co_spawn(io_, accept_connections(), asio::detached);
  asio::co_spawn(io_, load_model(), asio::detached);
  while (!drained_ && io_.run_one() > 0) {
  }
  // Nothing new comes any more; what is left ends by itself, now that its sockets are closed.
  io_.run_for(kRunDryMax);
  if (!io_.stopped()) {
    log::error("something is still under way after the drain; ending all the same");
    log::stop();
    ::_exit(failure_ ? 1 : 0);
  }
  if (failure_) return std::unexpected(*failure_);
  return {};
}

void Server::keep_key_use() {
  const auto& keys = options_.service.access.keys;
  const bool has_budgets =
      std::ranges::any_of(keys, [](const ApiKey& key) { return key.tokens_per_day_max > 0; });
  if (!has_budgets) return;
  if (options_.key_use_path.empty()) {
    log::warning("there is no folder for what keys have used today: it is forgotten at the end");
    return;
  }
  service_.keep_key_use(options_.key_use_path, io_.get_executor(), disk_);
}

/// A server without batches is better than none.
void Server::open_batches() {
  if (options_.batches_directory.empty()) return;
  auto store = BatchStore::open(options_.batches_directory);
  if (store) {
    service_.use_batches(io_.get_executor(), disk_, *std::move(store));
  } else {
    log::warning("no message batches: {}", store.error().message);
    service_.refuse_batches("there are no message batches here: " + store.error().message);
  }
}

std::expected<void, StartFailure> Server::listen() {
  using Kind = StartFailure::Kind;
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(
      options_.host == "localhost" ? std::string("127.0.0.1") : options_.host, error);
  if (error) {
    return std::unexpected(StartFailure{
        Kind::kAddress, fmt::format("host \"{}\" is not an IP address", options_.host)});
  }
  const tcp::endpoint endpoint(address, options_.port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return {};
  const bool in_use = error == asio::error::address_in_use;
  return std::unexpected(StartFailure{
      in_use ? Kind::kPortInUse : Kind::kAddress,
      fmt::format("cannot listen on {}:{}: {}{}", options_.host, options_.port, error.message(),
                  in_use ? "; another server is there (pensieve health tells whether "
                           "it is Pensieve); choose one with --port"
                         : "")});
}

asio::awaitable<void> Server::load_model() {
  const model::Pool::Acquired link = co_await pool_.acquire();
  if (draining_) co_return;
  using Kind = model::LoadFailure::Kind;
  const bool may_pass =
      !link && (link.error().kind == Kind::kNotNow || link.error().kind == Kind::kInterrupted);
  if (!link && !may_pass) {
    failure_ = StartFailure{link.error().kind == Kind::kNever ? StartFailure::Kind::kMemory
                                                              : StartFailure::Kind::kModel,
                            link.error().message};
    begin_drain("the model cannot be loaded");
    co_return;
  }
  Started started;
  started.port = acceptor_.local_endpoint().port();
  started.model = pool_.status();
  if (!link) started.not_loaded = link.error();
  started.memory = monitor_.status();
  on_started_(started);
}

asio::awaitable<void> Server::accept_connections() {
  while (!draining_) {
    auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
    if (draining_ || error == asio::error::operation_aborted) co_return;
    if (error) {
      log::warning("accepting a connection: {}", error.message());
      connections_.evict();  // Where descriptors have run out, that gives one back.
      Timer pause(io_, kAcceptPause);
      co_await pause.async_wait(kNoThrow);
      continue;
    }
    const bool full = connections_.status().open >= connections_.max();
    const bool room = connections_.make_room();
    note_crowd(full);
    if (!room) continue;  // The socket closes here.
    start_connection(std::move(socket), service_, connections_, options_.connection);
  }
}

/// One line when the table has become full and one when it is not any more.
void Server::note_crowd(bool full) {
  const std::size_t open = connections_.status().open;
  if (full && !crowded_) {
    crowded_ = true;
    log::warning("{} connections: from now on the longest waiting is closed for each new one",
                 connections_.max());
  } else if (crowded_ && open <= connections_.max() / 4 * 3) {
    crowded_ = false;
    const ConnectionTable::Status status = connections_.status();
    log::info("{} connections: there is room again ({} were closed, {} refused so far)", open,
              status.evicted, status.refused);
  }
}

asio::awaitable<void> Server::sample_memory() {
  while (true) {
    pool_.settle();
    const model::Pool::Status model = pool_.status();
    monitor_.set_held(model.heartbeat.anonymous);
    monitor_.set_owed(model.owed);
    monitor_.sample();
    memory_log_.note(monitor_.status(), monitor_.forecast());
    service_.tick();
    pressure_.tick();
    sample_timer_.expires_after(monitor_.sample_interval());
    const auto [error] = co_await sample_timer_.async_wait(kNoThrow);
    if (error || drained_) co_return;
  }
}

asio::awaitable<void> Server::wait_for_signals() {
  const auto [error, signal] = co_await signals_.async_wait(kNoThrow);
  if (error) co_return;
  begin_drain(signal == SIGINT ? "Ctrl+C" : "SIGTERM");
  if (drained_) co_return;  // There was nothing to wait for, and nobody to cancel a wait here.
  const auto [again_error, again] = co_await signals_.async_wait(kNoThrow);
  if (again_error) co_return;
  log::warning("second signal: ending at once");
  log::stop();
  ::_exit(kExitBySecondSignal);  // The worker sees its socket close and ends as well.
}

void Server::begin_drain(std::string_view why) {
  if (draining_) return;
  draining_ = true;
  const std::uint32_t active = service_.requests_active();
  log::info("stopping ({}); {} request{} to finish", why, active, active == 1 ? "" : "s");
  service_.begin_drain();
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  asio::co_spawn(io_, drain(), asio::detached);
}

asio::awaitable<void> Server::drain() {
  connections_.for_each([](Connection& connection) { connection.close_when_idle(); });
  const TimePoint deadline = clock_.now() + options_.drain_max;
  Timer timer(io_);
  while (service_.requests_active() > 0 && clock_.now() < deadline) {
    timer.expires_after(kDrainInterval);
    co_await timer.async_wait(kNoThrow);
  }
  if (service_.requests_active() > 0) {
    log::warning("{} requests are cut off: the time to finish is over", service_.requests_active());
    service_.end_running(api::overloaded("the server is shutting down", 5));
    const TimePoint told_by = clock_.now() + kTellMax;
    while (service_.requests_active() > 0 && clock_.now() < told_by) {
      timer.expires_after(kDrainInterval);
      co_await timer.async_wait(kNoThrow);
    }
  }
  connections_.for_each([](Connection& connection) { connection.abort(); });
  pool_.shut_down(kWorkerStopGrace);
  const TimePoint worker_deadline = clock_.now() + kWorkerEndMax;
  while (pool_.status().state != model::State::kUnloaded && clock_.now() < worker_deadline) {
    timer.expires_after(kDrainInterval);
    co_await timer.async_wait(kNoThrow);
  }
  service_.save_key_use();  // Of requests that were cut off, too. Runs on until io_ has run dry.
  signals_.cancel();
  sample_timer_.cancel();
  drained_ = true;
}

}  // namespace

std::expected<void, StartFailure> run_server(
    memory::MemorySource& source, const Clock& clock, const ServerOptions& options,
    const std::function<void(const Started&)>& on_started) {
  Server server(source, clock, options);
  return server.run(on_started);
}

}  // namespace pensieve::gateway
