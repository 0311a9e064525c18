// The production service behind production connections on a free loopback port, in one thread
// with the test, which sets its memory and its clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "base/testing/fake_clock.h"
#include "gateway/connection.h"
#include "gateway/connection_table.h"
#include "gateway/pressure_control.h"
#include "gateway/service.h"
#include "gateway/testing/http_probe.h"
#include "memory/governor.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "memory/testing/fake_memory_source.h"
#include "model/pool.h"

namespace pensieve::gateway {

/// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string at(std::string_view name) const;
  /// A file for the scripted engine.
  model::ModelFile model(std::string_view lines) const;

 private:
  std::string path_;
};

/// Floors at which the worker's own check never refuses: the machine that runs the test is not
/// what is tested. The gateway's floors are another matter.
inline constexpr memory::Floors kLowestFloors{Bytes(4), Bytes(3), Bytes(2), Bytes(1)};

/// Starts at Safe. Its end is the end of a server with whatever requests are under way then, and
/// fails the test where something goes on.
class TestServer {
 public:
  struct Options {
    std::string model_lines;
    Service::Options service;
    model::Pool::Options pool = default_pool();  // `model` is set by the server.
    ConnectionLimits connection;
    memory::Monitor::Options monitor;
    memory::Governor::Options governor;
    std::string batches_directory;  // Empty: no message batches.
    std::string key_use_path;       // Empty: what keys use of the day is not kept.

    static model::Pool::Options default_pool();
  };

  TestServer() : TestServer(Options{}) {}
  explicit TestServer(Options options);
  ~TestServer();
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  HttpProbe connect();
  /// One request on a connection of its own.
  Answer answer(std::string_view request);

  /// The level that `available` stands for counts at once, also where it is a recovery.
  void set_available(Bytes available);
  /// Moves the clock, then reads memory and lets the governor act, as the server's timer would.
  void let_pass(Duration duration);
  /// The same without moving the clock.
  void sample();
  /// Lets the server get on until `condition`. False where that takes too long.
  bool wait_until(const std::function<bool()>& condition);

  /// Worker processes that run requests, and requests that wait, as last heard.
  std::uint32_t running() const { return pool_.status().heartbeat.running; }
  /// SIGKILL to the worker, as the kernel or a user would.
  void kill_worker() const;

  /// A statement that the first worker to come by it obeys; no other does.
  std::string once(std::string_view statement) const;
  bool once_happened() const;

  FakeClock clock;
  WallTime wall{std::chrono::seconds(1'767'225'600)};  // 2026-01-01T00:00:00Z.
  memory::FakeMemorySource memory;

  const memory::Governor& governor() const { return governor_; }
  memory::Monitor& monitor() { return monitor_; }
  memory::Ledger& ledger() { return ledger_; }
  model::Pool& pool() { return pool_; }
  Service& service() { return service_; }
  bool stop_asked() const { return stop_asked_; }
  const std::vector<std::weak_ptr<Connection>>& connections() const { return connections_; }

 private:
  boost::asio::awaitable<void> accept();
  void turn();

  TemporaryFolder folder_;
  const Options options_;
  boost::asio::io_context io_{1};
  DiskThread disk_{io_.get_executor()};
  memory::Monitor monitor_;
  memory::Ledger ledger_;
  memory::Governor governor_;
  model::Pool pool_;
  bool stop_asked_ = false;
  Service service_;
  PressureControl pressure_;
  boost::asio::ip::tcp::acceptor acceptor_;
  ConnectionTable table_{1000};
  std::vector<std::weak_ptr<Connection>> connections_;
};

}  // namespace pensieve::gateway
