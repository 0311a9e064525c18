#include "gateway/testing/test_server.h"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr Duration kPatience = std::chrono::seconds(30);
constexpr auto kTurn = std::chrono::milliseconds(2);

model::Pool::Options with_model(model::Pool::Options pool, model::ModelFile model) {
  if (!pool.model.id.empty()) model.id = pool.model.id;
  pool.model = std::move(model);
  return pool;
}

Service::Options with_wall(Service::Options service, std::function<WallTime()> wall) {
  service.wall = std::move(wall);
  return service;
}

}  // namespace

TemporaryFolder::TemporaryFolder() : path_(testing::TempDir() + "pensieve-gateway-XXXXXX") {
  PENSIEVE_CHECK(::mkdtemp(path_.data()) != nullptr);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // A folder left behind is not worth a failed test.
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::at(std::string_view name) const {
  return fmt::format("{}/{}", path_, name);
}

model::ModelFile TemporaryFolder::model(std::string_view lines) const {
  std::ofstream(at("scripted.script")) << lines;
  return {.id = "scripted", .path = at("scripted.script"), .engine = "scripted"};
}

model::Pool::Options TestServer::Options::default_pool() {
  model::Pool::Options pool;
  pool.worker_program = PENSIEVE_TEST_WORKER;
  pool.floors = kLowestFloors;
  // The test's clock may jump by minutes while the worker is well.
  pool.hang_after = std::chrono::hours(24);
  return pool;
}

TestServer::TestServer(Options options)
    : options_(std::move(options)),
      monitor_(memory, clock, options_.monitor),
      governor_(options_.governor),
      pool_(io_.get_executor(), clock, monitor_, ledger_,
            with_model(options_.pool, folder_.model(options_.model_lines))),
      service_(pool_, monitor_, ledger_, governor_, clock,
               with_wall(options_.service, [this] { return wall; }),
               [this] { stop_asked_ = true; }),
      pressure_(governor_, monitor_, pool_, service_, clock, [this] { stop_asked_ = true; }),
      acceptor_(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
  memory.set_available(8_GiB);
  monitor_.sample();
  service_.show_connections(table_);
  if (!options_.key_use_path.empty()) {
    service_.keep_key_use(options_.key_use_path, io_.get_executor(), disk_);
  }
  if (!options_.batches_directory.empty()) {
    auto store = BatchStore::open(options_.batches_directory);
    EXPECT_TRUE(store) << store.error().message;
    service_.use_batches(io_.get_executor(), disk_, *std::move(store));
  }
  asio::co_spawn(io_, accept(), asio::detached);
}

TestServer::~TestServer() {
  service_.begin_drain();
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  for (const auto& weak : connections_) {
    if (const auto connection = weak.lock()) connection->abort();
  }
  // No grace: the clock stands still. A worker that is well is faster than the next look at it.
  service_.save_key_use();
  pool_.shut_down(Duration::zero());
  io_.restart();
  io_.run_for(kPatience);
  EXPECT_TRUE(io_.stopped()) << "something is still under way";
  EXPECT_EQ(service_.requests_active(), 0U);
}

asio::awaitable<void> TestServer::accept() {
  while (true) {
    auto [error, socket] = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    connections_.push_back(
        start_connection(std::move(socket), service_, table_, options_.connection));
  }
}

void TestServer::turn() {
  io_.run_one_for(kTurn);
}

HttpProbe TestServer::connect() {
  return HttpProbe(acceptor_.local_endpoint().port(), [this] { turn(); });
}

Answer TestServer::answer(std::string_view request) {
  HttpProbe probe = connect();
  probe.send(request);
  return probe.answer();
}

void TestServer::set_available(Bytes available) {
  memory.set_available(available);
  sample();
  let_pass(options_.monitor.recovery_hold);
}

void TestServer::let_pass(Duration duration) {
  clock.advance(duration);
  sample();
}

void TestServer::sample() {
  pool_.settle();
  monitor_.sample();
  service_.tick();
  pressure_.tick();
}

bool TestServer::wait_until(const std::function<bool()>& condition) {
  const TimePoint give_up = steady_clock().now() + kPatience;
  while (!condition()) {
    if (steady_clock().now() > give_up) return false;
    turn();
  }
  return true;
}

void TestServer::kill_worker() const {
  const pid_t pid = pool_.status().pid;
  PENSIEVE_CHECK(pid > 0);
  ::kill(pid, SIGKILL);
}

std::string TestServer::once(std::string_view statement) const {
  return fmt::format("once {} {}", folder_.at("once"), statement);
}

bool TestServer::once_happened() const {
  return std::filesystem::exists(folder_.at("once"));
}

}  // namespace pensieve::gateway
