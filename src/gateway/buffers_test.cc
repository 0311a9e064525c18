// What requests hold in the gateway, through the whole server.
#include <csignal>
#include <string>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

/// A Messages request of about `bytes` whose answer is given by `script`.
std::string large(std::size_t bytes, std::string_view script, std::string_view members = "") {
  return post(
      "/v1/messages",
      fmt::format(R"({{"model":"scripted","max_tokens":9000{},"messages":[)"
                  R"({{"role":"user","content":"{}"}},{{"role":"assistant","content":"a"}},)"
                  R"({{"role":"user","content":"script: {}"}}]}})",
                  members, std::string(bytes, 'x'), script));
}

TestServer::Options with_wide_window() {
  TestServer::Options options;
  options.model_lines = "context_tokens 1000000";
  options.pool.context_tokens = 1'000'000;
  return options;
}

bool is_empty(TestServer& server) {
  return server.service().buffers().held() == Bytes();
}

TEST(Buffers, AReaderThatStopsHoldsLittleMoreThanItsText) {
  TestServer server(with_wide_window());
  HttpProbe slow = server.connect();
  slow.send(ask_stream("endless " + std::string(60, 'w'), R"("max_tokens":900000)"));
  slow.head();
  ASSERT_TRUE(server.wait_until([&] { return server.service().buffers().held() > 1_MiB; }));
  slow.hang_up();
  EXPECT_TRUE(server.wait_until([&] { return is_empty(server); }));
}

TEST(Buffers, AWholeAnswerIsChargedAsItGrows) {
  TestServer server;
  HttpProbe probe = server.connect();
  probe.send(ask(fmt::format("repeat 4000 {}", std::string(60, 'w')), R"("max_tokens":5000)"));
  bool grew = false;
  ASSERT_TRUE(server.wait_until([&] {
    grew = grew || server.service().buffers().held() >= 1_MiB;
    return grew;
  }));
  EXPECT_EQ(probe.answer().status, 200U);
  EXPECT_TRUE(server.wait_until([&] { return is_empty(server); }));
}

TEST(Buffers, AWholeAnswerEndsWithTheNumbersWhereThereIsNoRoom) {
  TestServer::Options options;
  options.service.buffers.bytes_max = 600_MiB;
  TestServer server(std::move(options));
  auto others = server.service().buffers().try_charge(Bytes((600_MiB).count() - (700U << 10)));
  ASSERT_TRUE(others);
  const Answer answer = server.answer(
      ask(fmt::format("repeat 4000 {}", std::string(60, 'w')), R"("max_tokens":5000)"));
  EXPECT_EQ(answer.status, 503U) << answer.body;
  EXPECT_NE(answer.body.find("no room for the whole answer"), std::string::npos) << answer.body;
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

TEST(Buffers, ALargeRequestAtCriticalIsRefusedBeforeItsBodyComes) {
  TestServer server;
  server.set_available(700_MiB);
  HttpProbe probe = server.connect();
  probe.send("POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n");
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("x-memory-status"), "Critical");
  EXPECT_NE(answer.body.find("critical memory pressure"), std::string::npos) << answer.body;
}

TEST(Buffers, AStrangersLargeBodyIsNotRead) {
  TestServer::Options options;
  options.service.access.keys = {{.name = "", .secret = "secret"}};
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send("POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n");
  EXPECT_EQ(probe.answer().status, 401U);
}

TEST(Buffers, AThousandLargeBodiesHoldNoMoreThanTheBound) {
  TestServer server;
  std::vector<HttpProbe> probes;
  unsigned refused = 0;
  for (int i = 0; i < 12; ++i) {
    probes.push_back(server.connect());
    probes.back().send(
        "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 33000000\r\n\r\n{");
  }
  for (HttpProbe& probe : probes) {
    if (probe.is_silent()) continue;
    const Answer answer = probe.answer();
    EXPECT_EQ(answer.status, 503U);
    EXPECT_EQ(answer.header("retry-after"), "2");
    EXPECT_NE(answer.body.find("overloaded_error"), std::string::npos) << answer.body;
    EXPECT_NE(answer.body.find("of 512.0MB are in use"), std::string::npos) << answer.body;
    ++refused;
  }
  EXPECT_EQ(refused, 8U) << "four of 126 MB fit 512 MB";
  EXPECT_LE(server.service().buffers().held(), 512_MiB);
  for (HttpProbe& probe : probes) probe.hang_up();
  EXPECT_TRUE(server.wait_until([&] { return is_empty(server); }));
}

TEST(Buffers, AnAbortAtAnyPointOfARequestLeavesNothingBehind) {
  TestServer server(with_wide_window());
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  ASSERT_TRUE(server.wait_until([&] { return is_empty(server); }));
  const Bytes models = server.ledger().promised();
  const std::string requests[] = {large(200'000, "delay 1; endless word", R"(,"stream":true)"),
                                  large(200'000, "delay 1; endless word")};
  for (const std::string& request : requests) {
    for (std::size_t cut = 1; cut <= request.size(); cut += request.size() / 7) {
      HttpProbe probe = server.connect();
      probe.send(request.substr(0, cut));
      for (int i = 0; i < 3; ++i) server.wait_until([] { return true; });
      probe.hang_up();
      ASSERT_TRUE(server.wait_until([&] { return is_empty(server); })) << cut;
    }
    HttpProbe running = server.connect();
    running.send(request);
    ASSERT_TRUE(server.wait_until([&] { return server.running() == 1; }));
    running.hang_up();
    ASSERT_TRUE(server.wait_until([&] { return is_empty(server); }));
  }
  EXPECT_EQ(server.ledger().promised(), models);
}

TEST(Buffers, AFrameThatWaitsForAWorkerStaysChargedAfterItsClientIsGone) {
  TestServer server(with_wide_window());
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  // The worker's reader hangs over this one, so that the next frame cannot be written.
  const pid_t worker = server.pool().status().pid;
  ASSERT_GT(worker, 0);
  const std::string request = large(4'000'000, "say hello");
  HttpProbe first = server.connect();
  ::kill(worker, SIGSTOP);
  first.send(request);
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 1; }));
  first.hang_up();
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  EXPECT_GE(server.service().buffers().held(), Bytes(4'000'000));
  EXPECT_LT(server.service().buffers().held(), Bytes(4'200'000));
  ::kill(worker, SIGCONT);
  EXPECT_TRUE(server.wait_until([&] { return is_empty(server); }));
}

TEST(Buffers, ABodyThatCanNeverFitIsTheRequestsFault) {
  TestServer::Options options;
  options.service.buffers.bytes_max = 64_MiB;
  TestServer server(std::move(options));
  HttpProbe probe = server.connect();
  probe.send("POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 33000000\r\n\r\n");
  EXPECT_EQ(probe.answer().status, 413U);
}

TEST(Buffers, ABodyInChunksEndsWhereTheRoomEnds) {
  TestServer server;
  const auto others = server.service().buffers().try_charge(500_MiB);
  ASSERT_TRUE(others);
  HttpProbe probe = server.connect();
  probe.send("POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n");
  for (int i = 0; i < 16; ++i) probe.send("100000\r\n" + std::string(0x100000, 'x') + "\r\n");
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 503U);
  EXPECT_NE(answer.body.find("of 512.0MB are in use"), std::string::npos) << answer.body;
}

TEST(Buffers, APromptThatNoWindowTakesIsNotSentToTheWorker) {
  TestServer server;
  const Answer answer = server.answer(large(8192 * 16 + 1, "say hello"));
  EXPECT_EQ(answer.status, 400U);
  EXPECT_NE(answer.body.find("prompt is too long: 32"), std::string::npos) << answer.body;
  EXPECT_NE(answer.body.find("tokens > 8191 maximum"), std::string::npos) << answer.body;
}

}  // namespace
}  // namespace pensieve::gateway
