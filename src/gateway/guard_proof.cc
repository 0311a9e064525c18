#include "gateway/guard_proof.h"

#include <array>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "gateway/connection_table.h"
#include "gateway/service.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "memory/report.h"
#include "model/pool.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kAnswerBytesMax = 64U << 10;

/// Says what the proof wants to be true.
class SimulatedMemory final : public memory::MemorySource {
 public:
  void say(std::optional<Bytes> available) { available_ = available; }
  Result<memory::Reading> read() override {
    if (!available_) return fail(Code::kUnavailable, "simulated: not readable");
    return memory::Reading{*available_, Bytes(UINT64_MAX / 2), "simulation"};
  }

 private:
  std::optional<Bytes> available_;
};

/// Moves on at each look, so that no hold is in the way of the next case.
class HastyClock final : public Clock {
 public:
  TimePoint now() const override { return now_ += std::chrono::seconds(2); }

 private:
  mutable TimePoint now_{};
};

/// One Messages request whose body is wrong on purpose: what passes the guard gets a 400.
asio::awaitable<void> ask(tcp::acceptor& server, std::string& answer) {
  tcp::socket socket(co_await asio::this_coro::executor);
  const auto [connect_error] = co_await socket.async_connect(server.local_endpoint(), kNoThrow);
  if (connect_error) {
    server.cancel();  // Nobody comes any more: the proof has failed, and need not wait.
    co_return;
  }
  const std::string request =
      "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
      "content-length: 2\r\n\r\n{}";
  co_await asio::async_write(socket, asio::buffer(request), kNoThrow);
  answer.resize(kAnswerBytesMax);
  const auto [error, bytes] = co_await asio::async_read(socket, asio::buffer(answer), kNoThrow);
  answer.resize(bytes);
}

struct Case {
  std::string name;
  std::optional<Bytes> available;
  bool refused;
};

std::vector<Case> cases(const memory::Floors& floors) {
  const auto below = [](Bytes floor) { return saturating_sub(floor, Bytes(1)); };
  return {{"accepts at Safe", floors.caution, false},
          {"accepts at Caution", below(floors.caution), false},
          {"accepts at Warning", below(floors.warning), false},
          {"refuses at Critical", below(floors.critical), true},
          {"refuses at Emergency", below(floors.emergency), true},
          {"refuses where memory cannot be read", std::nullopt, true},
          {"accepts again after recovery", floors.caution, false}};
}

class Bench {
 public:
  explicit Bench(const memory::Floors& floors)
      : monitor_(source_, clock_, {.floors = floors}),
        pool_(io_.get_executor(), clock_, monitor_, ledger_, {}),
        service_(pool_, monitor_, ledger_, governor_, clock_, {}, [] {}),
        acceptor_(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {}

  GuardProof prove(const Case& wanted) {
    source_.say(wanted.available);
    // Twice: a better reading counts only when it has held.
    monitor_.sample();
    monitor_.sample();
    std::string answer;
    asio::co_spawn(io_, accept_one(), asio::detached);
    asio::co_spawn(io_, ask(acceptor_, answer), asio::detached);
    io_.restart();
    io_.run_for(std::chrono::seconds(5));
    const std::string status = answer.substr(0, answer.find('\r'));
    return {wanted.name, wanted.refused ? shows_refusal(answer) : shows_acceptance(answer),
            fmt::format("{}: {}",
                        wanted.available ? fmt::format("{}GB", memory::gb_text(*wanted.available))
                                         : std::string("unreadable"),
                        status.empty() ? std::string("no answer") : status)};
  }

 private:
  asio::awaitable<void> accept_one() {
    auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
    if (!error) start_connection(std::move(socket), service_, connections_, {});
  }

  asio::io_context io_{1};
  SimulatedMemory source_;
  HastyClock clock_;
  memory::Monitor monitor_;
  memory::Ledger ledger_;
  memory::Governor governor_{memory::Governor::Options()};
  model::Pool pool_;
  Service service_;
  tcp::acceptor acceptor_;
  ConnectionTable connections_{8};
};

}  // namespace

bool shows_refusal(std::string_view answer) {
  return answer.starts_with("HTTP/1.1 503 ") &&
         answer.find("\"overloaded_error\"") != std::string_view::npos &&
         answer.find("x-memory-status: ") != std::string_view::npos &&
         answer.find("x-available-memory-gb: ") != std::string_view::npos;
}

bool shows_acceptance(std::string_view answer) {
  return answer.starts_with("HTTP/1.1 400 ");
}

std::string failures_of(const std::vector<GuardProof>& proofs) {
  if (proofs.empty()) return "nothing was proved";
  std::string text;
  for (const GuardProof& proof : proofs) {
    if (proof.passed) continue;
    text += fmt::format("{}{} ({})", text.empty() ? "" : "; ", proof.name, proof.detail);
  }
  return text;
}

std::vector<GuardProof> prove_guard(const memory::Floors& floors) {
  std::vector<GuardProof> proofs;
  try {
    Bench bench(floors);
    for (const Case& wanted : cases(floors)) proofs.push_back(bench.prove(wanted));
  } catch (const std::exception& error) {
    proofs.push_back({"a loopback port can be opened", false, error.what()});
  }
  return proofs;
}

}  // namespace pensieve::gateway
