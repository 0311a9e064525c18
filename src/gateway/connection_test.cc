// HTTP on real sockets, with a sink that answers by what it was asked.
#include "gateway/connection.h"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/testing/fake_clock.h"
#include "gateway/buffer_account.h"
#include "gateway/connection_table.h"
#include "gateway/testing/http_probe.h"
#include "memory/testing/fake_memory_source.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

/// /stream: three events. /endless: events until the client is gone. /wait: answers when the
/// client is gone or finish() is called. Anything else: the request, told back.
class TellingSink final : public RequestSink {
 public:
  explicit TellingSink(asio::io_context& io) : wake_(io, TimePoint::max()) {
    memory.set_available(8_GiB);
  }

  asio::awaitable<void> serve(Exchange& exchange) override {
    const HttpRequest& request = exchange.request();
    ++served;
    if (request.path == "/stream") co_return co_await stream(exchange, 3);
    if (request.path == "/endless") co_return co_await stream(exchange, SIZE_MAX);
    if (request.path == "/wait") co_return co_await wait(exchange);
    HttpResponse response;
    response.content_type = "text/plain";
    response.body = request.method + " " + request.path + " " + request.query + " " + request.body;
    co_await exchange.respond(std::move(response));
  }
  HttpResponse protocol_error(const HttpRequest&, unsigned status, std::string) override {
    HttpResponse response;
    response.status = status;
    response.body = "refused";
    return response;
  }
  std::optional<HttpResponse> refuse_unread(const HttpRequest& head) override {
    if (head.path != "/unread") return std::nullopt;
    HttpResponse response;
    response.status = 401;
    return response;
  }
  HttpResponse refuse_for_shortage(const HttpRequest&, const BufferShortage& shortage) override {
    HttpResponse response;
    response.status = 503;
    response.body = describe(shortage);
    return response;
  }
  BufferAccount& buffers() override { return account; }
  void finish() { wake_.cancel(); }

  memory::FakeMemorySource memory;
  FakeClock clock;
  memory::Monitor monitor{memory, clock, {}};
  memory::Ledger ledger;
  BufferAccount account{ledger, monitor, {}};

  int served = 0;
  int waiting = 0;
  int clients_gone = 0;
  std::size_t written = 0;

 private:
  asio::awaitable<void> stream(Exchange& exchange, std::size_t events) {
    Headers headers{{"content-type", "text/event-stream"}};
    bool on = co_await exchange.begin_stream(std::move(headers));
    for (std::size_t i = 0; on && i < events; ++i) {
      on = co_await exchange.write("event: tick\ndata: 1\n\n");
      ++written;
    }
    if (on) on = co_await exchange.end_stream();
    if (!on) ++clients_gone;
  }

  asio::awaitable<void> wait(Exchange& exchange) {
    ++waiting;
    exchange.on_client_gone([this] { wake_.cancel(); });
    co_await wake_.async_wait(kNoThrow);
    exchange.on_client_gone(nullptr);
    --waiting;
    if (exchange.client_gone()) {
      ++clients_gone;
      co_return;
    }
    HttpResponse response;
    response.body = "waited";
    co_await exchange.respond(std::move(response));
  }

  asio::steady_timer wake_;
};

class ConnectionTest : public testing::Test {
 protected:
  ConnectionTest() : sink(io_), acceptor_(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    asio::co_spawn(io_, accept(), asio::detached);
  }
  ~ConnectionTest() override {
    acceptor_.close();
    for (const auto& weak : connections) {
      if (const auto connection = weak.lock()) connection->abort();
    }
    io_.restart();
    io_.run_for(std::chrono::seconds(20));
    EXPECT_TRUE(io_.stopped()) << "something is still under way";
  }

  HttpProbe connect() {
    return HttpProbe(acceptor_.local_endpoint().port(), [this] { turn(); });
  }
  Answer answer(std::string_view request) {
    HttpProbe probe = connect();
    probe.send(request);
    return probe.answer();
  }
  void turn() { io_.run_one_for(milliseconds(2)); }
  bool wait_until(const std::function<bool()>& condition) {
    const TimePoint give_up = steady_clock().now() + std::chrono::seconds(20);
    while (!condition() && steady_clock().now() < give_up) turn();
    return condition();
  }

  ConnectionLimits limits;
  ConnectionTable table{1000};
  std::vector<std::weak_ptr<Connection>> connections;

 private:
  asio::awaitable<void> accept() {
    while (true) {
      auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
      if (error) co_return;
      connections.push_back(start_connection(std::move(socket), sink, table, limits));
    }
  }

  asio::io_context io_{1};

 protected:
  TellingSink sink;

 private:
  tcp::acceptor acceptor_;
};

TEST_F(ConnectionTest, AConnectionServesOneRequestAfterAnother) {
  HttpProbe probe = connect();
  for (const std::string_view path : {"/a", "/b", "/c"}) {
    probe.send(post(path, "body"));
    const Answer answer = probe.answer();
    EXPECT_EQ(answer.status, 200U);
    EXPECT_EQ(answer.body, "POST " + std::string(path) + "  body");
  }
  EXPECT_EQ(connections.size(), 1U);
}

TEST_F(ConnectionTest, RequestsSentAtOnceAreAnsweredInTheirOrder) {
  HttpProbe probe = connect();
  probe.send(post("/a", "1") + get("/stream") + get("/b") + post("/c", "2"));
  EXPECT_EQ(probe.answer().body, "POST /a  1");
  probe.head();
  EXPECT_EQ(probe.event_names(), "tick tick tick");
  EXPECT_EQ(probe.answer().body, "GET /b  ");
  EXPECT_EQ(probe.answer().body, "POST /c  2");
}

TEST_F(ConnectionTest, ARequestMayComeByteByByte) {
  HttpProbe probe = connect();
  for (const char byte : post("/a", "body")) {
    probe.send(std::string_view(&byte, 1));
    turn();
  }
  EXPECT_EQ(probe.answer().body, "POST /a  body");
}

TEST_F(ConnectionTest, PathAndQueryAreTakenApartAndStayEncoded) {
  EXPECT_EQ(answer(get("/a%2Fb?beta=true&x=%20")).body, "GET /a%2Fb beta=true&x=%20 ");
  EXPECT_EQ(answer(get("/a?")).body, "GET /a  ");
}

TEST_F(ConnectionTest, ABodyInChunksIsRead) {
  EXPECT_EQ(answer("POST /a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
                   "4\r\nbody\r\n0\r\n\r\n")
                .body,
            "POST /a  body");
}

TEST_F(ConnectionTest, AClientThatAsksForItIsLeftAfterTheAnswer) {
  HttpProbe probe = connect();
  probe.send(get("/a", "connection: close\r\n"));
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, AnOldClientGetsItsAnswerAndTheEndOfTheConnection) {
  HttpProbe probe = connect();
  probe.send("GET /a HTTP/1.0\r\n\r\n");
  EXPECT_EQ(probe.answer().body, "GET /a  ");
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, AnOldClientThatKeepsTheConnectionIsToldSo) {
  HttpProbe probe = connect();
  for (int i = 0; i < 2; ++i) {
    probe.send("GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    EXPECT_EQ(probe.answer().header("connection"), "keep-alive");
  }
}

TEST_F(ConnectionTest, AnOldClientGetsAStreamWithoutChunks) {
  HttpProbe probe = connect();
  probe.send("GET /stream HTTP/1.0\r\n\r\n");
  const Answer head = probe.head();
  EXPECT_EQ(head.header("transfer-encoding"), "");
  EXPECT_EQ(probe.event_names(), "tick tick tick");
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, AStreamComesInChunksAndTheConnectionGoesOn) {
  HttpProbe probe = connect();
  for (int i = 0; i < 2; ++i) {
    probe.send(get("/stream"));
    EXPECT_EQ(probe.head().header("transfer-encoding"), "chunked");
    EXPECT_EQ(probe.event_names(), "tick tick tick");
  }
}

TEST_F(ConnectionTest, AClientThatAsksWhetherToGoOnIsTold) {
  HttpProbe probe = connect();
  const std::string request = post("/a", "body", "expect: 100-continue\r\n");
  probe.send(request.substr(0, request.size() - 4));
  EXPECT_EQ(probe.head().status, 100U);
  probe.send("body");
  EXPECT_EQ(probe.answer().body, "POST /a  body");
}

TEST_F(ConnectionTest, AClientThatAsksWithTooLargeABodyIsToldNoAtOnce) {
  limits.body_bytes_max = 10;
  HttpProbe probe = connect();
  probe.send("POST /a HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
  EXPECT_EQ(probe.answer().status, 413U);
}

TEST_F(ConnectionTest, AnAnswerToHeadHasNoBody) {
  HttpProbe probe = connect();
  probe.send("HEAD /a HTTP/1.1\r\nhost: localhost\r\n\r\n");
  EXPECT_EQ(probe.head().header("content-length"), "9");
  probe.send("HEAD /stream HTTP/1.1\r\nhost: localhost\r\n\r\n");
  EXPECT_EQ(probe.head().header("content-type"), "text/event-stream");
  probe.send(get("/b"));
  EXPECT_EQ(probe.answer().body, "GET /b  ");
}

TEST_F(ConnectionTest, ABodyOfExactlyTheLimitPassesAndOneByteMoreDoesNot) {
  limits.body_bytes_max = 1000;
  EXPECT_EQ(answer(post("/a", std::string(1000, 'x'))).status, 200U);
  EXPECT_EQ(answer(post("/a", std::string(1001, 'x'))).status, 413U);
}

TEST_F(ConnectionTest, AClientThatIsStillSendingReceivesThe413) {
  limits.body_bytes_max = 1U << 20;
  HttpProbe probe = connect();
  probe.send(post("/a", std::string(16U << 20, 'x')));
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 413U);
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_EQ(answer.body, "refused");
  EXPECT_TRUE(probe.closed_by_server());
  EXPECT_EQ(sink.served, 0);
}

TEST_F(ConnectionTest, ABodyInChunksIsLimitedToo) {
  limits.body_bytes_max = 1000;
  HttpProbe probe = connect();
  probe.send("POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
  for (int i = 0; i < 20; ++i) probe.send("64\r\n" + std::string(100, 'x') + "\r\n");
  EXPECT_EQ(probe.answer().status, 413U);
}

TEST_F(ConnectionTest, AHeaderThatIsTooLargeIsRefused) {
  limits.header_bytes_max = 2000;
  EXPECT_EQ(answer(get("/a", "x-long: " + std::string(1000, 'x') + "\r\n")).status, 200U);
  HttpProbe probe = connect();
  probe.send(get("/a", "x-long: " + std::string(100'000, 'x') + "\r\n"));
  EXPECT_EQ(probe.answer().status, 431U);
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, WhatIsNotHttpGetsA400) {
  for (const std::string_view garbage :
       {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n",
        "GET /a HTTP/1.1\r\nno colon\r\n\r\n", "POST /a HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        "POST /a HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"}) {
    HttpProbe probe = connect();
    probe.send(garbage);
    EXPECT_EQ(probe.answer().status, 400U) << garbage;
    EXPECT_TRUE(probe.closed_by_server());
  }
  EXPECT_EQ(sink.served, 0);
}

TEST_F(ConnectionTest, ABodyThatEndsEarlyIsNotServed) {
  HttpProbe probe = connect();
  probe.send("POST /a HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf");
  probe.shut_down_sending();
  EXPECT_TRUE(probe.closed_by_server());
  EXPECT_EQ(sink.served, 0);
}

TEST_F(ConnectionTest, AHeaderThatDoesNotCompleteInTimeEndsTheConnection) {
  limits.request_max = milliseconds(50);
  HttpProbe probe = connect();
  probe.send("GET /a HTTP/1.1\r\nhost: ");
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, ABodyThatDoesNotCompleteInTimeIsAnsweredWith408) {
  limits.request_max = milliseconds(50);
  HttpProbe probe = connect();
  probe.send("POST /a HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf");
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 408U);
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_TRUE(probe.closed_by_server());
  EXPECT_EQ(sink.served, 0);
}

TEST_F(ConnectionTest, AnIdleConnectionEndsAfterAWhile) {
  limits.idle_max = milliseconds(50);
  HttpProbe fresh = connect();
  EXPECT_TRUE(fresh.closed_by_server());
  HttpProbe used = connect();
  used.send(get("/a"));
  EXPECT_EQ(used.answer().status, 200U);
  EXPECT_TRUE(used.closed_by_server());
}

TEST_F(ConnectionTest, ARequestMayTakeLongerThanAnyLimitOfReading) {
  limits.idle_max = limits.request_max = limits.write_max = milliseconds(20);
  HttpProbe probe = connect();
  probe.send(get("/wait"));
  ASSERT_TRUE(wait_until([this] { return sink.waiting == 1; }));
  const TimePoint later = steady_clock().now() + milliseconds(100);
  ASSERT_TRUE(wait_until([&] { return steady_clock().now() > later; }));
  sink.finish();
  EXPECT_EQ(probe.answer().body, "waited");
}

TEST_F(ConnectionTest, AClientThatDoesNotReadIsLeftAlone) {
  limits.write_max = milliseconds(100);
  HttpProbe probe = connect();
  probe.send(get("/endless"));
  ASSERT_TRUE(wait_until([this] { return sink.clients_gone == 1; }));
  EXPECT_LT(sink.written, 10'000'000U);
  EXPECT_TRUE(wait_until([this] { return connections[0].expired(); }));
}

TEST_F(ConnectionTest, AClientThatHangsUpIsNoticedWhileNothingIsWritten) {
  HttpProbe probe = connect();
  probe.send(get("/wait"));
  ASSERT_TRUE(wait_until([this] { return sink.waiting == 1; }));
  probe.hang_up();
  EXPECT_TRUE(wait_until([this] { return sink.clients_gone == 1; }));
  EXPECT_TRUE(wait_until([this] { return connections[0].expired(); }));
}

TEST_F(ConnectionTest, AClientThatHangsUpInItsSecondRequestIsNoticedToo) {
  HttpProbe probe = connect();
  probe.send(get("/a"));
  EXPECT_EQ(probe.answer().status, 200U);
  probe.send(get("/wait"));
  ASSERT_TRUE(wait_until([this] { return sink.waiting == 1; }));
  probe.hang_up();
  EXPECT_TRUE(wait_until([this] { return sink.clients_gone == 1; }));
}

TEST_F(ConnectionTest, AClientThatHangsUpInAStreamIsNoticed) {
  HttpProbe probe = connect();
  probe.send(get("/endless"));
  probe.head();
  EXPECT_TRUE(probe.event());
  probe.hang_up();
  EXPECT_TRUE(wait_until([this] { return sink.clients_gone == 1; }));
}

TEST_F(ConnectionTest, AnIdleConnectionClosesAtOnceWhenTold) {
  HttpProbe probe = connect();
  probe.send(get("/a"));
  EXPECT_EQ(probe.answer().status, 200U);
  connections[0].lock()->close_when_idle();
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, ABusyConnectionClosesAfterItsAnswerWhenTold) {
  HttpProbe probe = connect();
  probe.send(get("/wait"));
  ASSERT_TRUE(wait_until([this] { return sink.waiting == 1; }));
  connections[0].lock()->close_when_idle();
  EXPECT_TRUE(probe.is_silent());
  sink.finish();
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.body, "waited");
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_TRUE(probe.closed_by_server());
}

TEST_F(ConnectionTest, AnAbortedConnectionClosesAtOnce) {
  HttpProbe probe = connect();
  probe.send(get("/wait"));
  ASSERT_TRUE(wait_until([this] { return sink.waiting == 1; }));
  connections[0].lock()->abort();
  EXPECT_TRUE(probe.closed_by_server());
  EXPECT_TRUE(wait_until([this] { return sink.clients_gone == 1; }));
}

TEST_F(ConnectionTest, ALargeBodyThatTheHeadSpeaksAgainstIsNotRead) {
  HttpProbe probe = connect();
  probe.send("POST /unread HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n");
  EXPECT_EQ(probe.answer().status, 401U) << "not a byte of the body was sent";
  EXPECT_TRUE(probe.closed_by_server());
  EXPECT_EQ(answer(post("/unread", std::string(kSmallBodyBytes, 'x'))).status, 200U);
}

TEST_F(ConnectionTest, ABodyForWhichThereIsNoRoomIsRefusedBeforeItIsRead) {
  const auto others = sink.account.try_charge(400_MiB);
  ASSERT_TRUE(others);
  HttpProbe probe = connect();
  probe.send("POST /a HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 33000000\r\n\r\n");
  const Answer refused = probe.answer();
  EXPECT_EQ(refused.status, 503U);
  EXPECT_EQ(refused.body,
            "The request needs 125.9MB of buffers; 400.1MB of 512.0MB are in use by other "
            "requests");
  EXPECT_EQ(answer(post("/a", std::string(1'000'000, 'x'))).status, 200U);
}

TEST_F(ConnectionTest, ABodyInChunksIsChargedAsItComes) {
  HttpProbe probe = connect();
  probe.send("POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
  std::size_t sent = 0;
  const auto send_chunk = [&] {
    probe.send("40000\r\n" + std::string(0x40000, 'x') + "\r\n");
    sent += 0x40000;
  };
  while (sent < (4U << 20)) {
    send_chunk();
    ASSERT_TRUE(wait_until([&] { return sink.account.held() >= request_bytes(sent); })) << sent;
    EXPECT_LE(sink.account.held(), request_bytes(2 * sent + (256U << 10)));
  }
  probe.send("0\r\n\r\n");
  EXPECT_EQ(probe.answer().body.size(), std::string("POST /a  ").size() + sent);
  EXPECT_TRUE(wait_until([&] { return sink.account.held() == Bytes(); }));
}

TEST_F(ConnectionTest, AnAbortAtAnyPointLeavesNothingInTheLedger) {
  const std::string plain = post("/a", std::string(100'000, 'x'));
  const std::string chunked = "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n18000\r\n" +
                              std::string(0x18000, 'x') + "\r\n0\r\n\r\n";
  for (const std::string& request : {plain, chunked, get("/endless"), get("/wait")}) {
    const std::size_t step = request.size() / 15 + 1;
    for (std::size_t cut = 1; cut <= request.size() + step; cut += step) {
      {
        HttpProbe probe = connect();
        probe.send(std::string_view(request).substr(0, cut));
        turn();
        probe.hang_up();
      }
      ASSERT_TRUE(wait_until([&] { return sink.ledger.promised() == Bytes(); })) << cut;
    }
  }
  EXPECT_EQ(sink.account.held(), Bytes());
}

}  // namespace
}  // namespace pensieve::gateway
