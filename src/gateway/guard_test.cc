// The memory guard as a client meets it: over HTTP, with a memory that the test sets.
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "gateway/server.h"
#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Bytes below(Bytes floor) {
  return saturating_sub(floor, Bytes(1));
}

constexpr memory::Floors kFloors;

Answer answer_at(TestServer& server, Bytes available) {
  server.set_available(available);
  return server.answer(ask("say hello"));
}

void expect_both_headers(const Answer& answer, std::string_view level, std::string_view gb) {
  EXPECT_EQ(answer.header("x-memory-status"), level);
  EXPECT_EQ(answer.header("x-available-memory-gb"), gb);
}

TEST(MemoryGuard, TheServerAcceptsAtSafe) {
  TestServer server;
  const Answer answer = answer_at(server, kFloors.caution);
  EXPECT_EQ(answer.status, 200U);
  expect_both_headers(answer, "Safe", "3.00");
}

TEST(MemoryGuard, TheServerAcceptsAtCaution) {
  TestServer server;
  const Answer answer = answer_at(server, below(kFloors.caution));
  EXPECT_EQ(answer.status, 200U);
  expect_both_headers(answer, "Caution", "2.99");
  EXPECT_EQ(answer_at(server, kFloors.warning).status, 200U);
}

TEST(MemoryGuard, TheServerAcceptsAtWarningAndLogsIt) {
  TestServer server;
  server.set_available(below(kFloors.warning));
  testing::internal::CaptureStderr();
  const Answer answer = server.answer(ask("say hello"));
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(answer.status, 200U);
  expect_both_headers(answer, "Warning", "1.99");
  EXPECT_NE(log.find("memory is short: 1.99GB available (machine); the request goes on"),
            std::string::npos)
      << log;
}

TEST(MemoryGuard, NothingIsLoggedAboutMemoryAtCaution) {
  TestServer server;
  server.set_available(below(kFloors.caution));
  testing::internal::CaptureStderr();
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(log.find("memory is short"), std::string::npos) << log;
}

TEST(MemoryGuard, TheServerStillAcceptsAtExactlyTheCriticalFloor) {
  TestServer server;
  const Answer answer = answer_at(server, kFloors.critical);
  EXPECT_EQ(answer.status, 200U);
  expect_both_headers(answer, "Warning", "1.00");
}

TEST(MemoryGuard, TheServerRejectsAtCritical) {
  TestServer server;
  const Answer answer = answer_at(server, 768_MiB);
  EXPECT_EQ(answer.status, 503U);
  expect_both_headers(answer, "Critical", "0.75");
  EXPECT_EQ(answer.header("retry-after"), "5");
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_EQ(without_ids(answer.body),
            R"({"type":"error","error":{"type":"overloaded_error","message":"Server is under )"
            R"(critical memory pressure: 0.75GB available"},"request_id":"req_*"})");
  EXPECT_EQ(answer_at(server, below(kFloors.critical)).status, 503U);
}

TEST(MemoryGuard, TheServerRejectsAtEmergency) {
  TestServer server;
  const Answer answer = answer_at(server, below(kFloors.emergency));
  EXPECT_EQ(answer.status, 503U);
  expect_both_headers(answer, "Emergency", "0.49");
  EXPECT_EQ(answer.header("retry-after"), "15");
  EXPECT_EQ(without_ids(answer.body),
            R"({"type":"error","error":{"type":"overloaded_error","message":"Server is under )"
            R"(emergency memory pressure: 0.49GB available"},"request_id":"req_*"})");
}

TEST(MemoryGuard, TheServerRejectsAStreamWithAStatusNotWithAnEvent) {
  TestServer server;
  server.set_available(768_MiB);
  const Answer answer = server.answer(ask_stream("say hello"));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("content-type"), "application/json");
}

TEST(MemoryGuard, TheServerRejectsCountsAtCriticalToo) {
  TestServer server;
  server.set_available(768_MiB);
  const Answer answer = server.answer(post("/v1/messages/count_tokens", "{}"));
  EXPECT_EQ(answer.status, 503U);
}

TEST(MemoryGuard, TheServerRejectsWhereMemoryCannotBeRead) {
  TestServer server;
  server.memory.fail("no such file");
  server.let_pass(seconds(3) + milliseconds(1));
  const Answer answer = server.answer(ask("say hello"));
  EXPECT_EQ(answer.status, 503U);
  expect_both_headers(answer, "Critical", "unknown");
  EXPECT_EQ(answer.header("retry-after"), "3");
  EXPECT_EQ(without_ids(answer.body),
            R"({"type":"error","error":{"type":"overloaded_error","message":"Server cannot read )"
            R"(its available memory and takes no new work until it can"},"request_id":"req_*"})");
}

TEST(MemoryGuard, TheServerAcceptsAgainAfterRecovery) {
  TestServer server;
  EXPECT_EQ(answer_at(server, 768_MiB).status, 503U);
  EXPECT_EQ(answer_at(server, 8_GiB).status, 200U);
  server.memory.fail("gone");
  server.let_pass(seconds(4));
  EXPECT_EQ(server.answer(ask("say hello")).status, 503U);
  server.memory.set_available(8_GiB);
  server.let_pass(seconds(1));
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

TEST(MemoryGuard, ARecoveryCountsOnlyWhenItHasHeld) {
  TestServer server;
  EXPECT_EQ(answer_at(server, 768_MiB).status, 503U);
  server.memory.set_available(8_GiB);
  server.let_pass(milliseconds(100));
  const Answer early = server.answer(ask("say hello"));
  EXPECT_EQ(early.status, 503U);
  EXPECT_EQ(early.header("retry-after"), "1");
  EXPECT_NE(early.body.find("8.00GB available, recovering"), std::string::npos) << early.body;
  server.let_pass(milliseconds(999));
  EXPECT_EQ(server.answer(ask("say hello")).status, 503U);
  server.let_pass(milliseconds(1));
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

TEST(MemoryGuard, ARunningRequestGoesOnWhenMemoryFallsBelowTheFloor) {
  TestServer server;
  HttpProbe running = server.connect();
  running.send(ask_stream("delay 5; repeat 20 word"));
  EXPECT_EQ(running.head().status, 200U);
  server.set_available(512_MiB);
  EXPECT_EQ(server.answer(ask("say hello")).status, 503U);
  EXPECT_TRUE(running.event_names().ends_with("message_stop"));
}

TEST(MemoryGuard, TheMonitorCanBeQueried) {
  TestServer server;
  server.set_available(1536_MiB);
  const memory::Monitor::Status status = server.monitor().status();
  EXPECT_EQ(status.level, memory::Level::kWarning);
  EXPECT_EQ(status.available, 1536_MiB);
  EXPECT_EQ(status.total, 16_GiB);
  EXPECT_EQ(status.limited_by, "machine");
}

TEST(MemoryGuard, TheWorkersOwnCheckRefusesWhereTheGatewaysDidNot) {
  // The worker sees this machine's memory, which is below these floors; the gateway sees the fake.
  TestServer::Options options;
  options.pool.floors = {Bytes(1ULL << 60), Bytes(1ULL << 59), Bytes(1ULL << 58), Bytes(1)};
  TestServer server(std::move(options));
  server.set_available(Bytes(1ULL << 61));
  for (const std::string& request : {ask("say hello"), ask_stream("say hello")}) {
    const Answer answer = server.answer(request);
    EXPECT_EQ(answer.status, 503U);
    EXPECT_EQ(answer.header("retry-after"), "5");
    EXPECT_NE(answer.body.find("Server is under critical memory pressure: "), std::string::npos)
        << answer.body;
  }
}

TEST(MemoryGuard, HealthTellsTheMemoryExactly) {
  const std::string kNoForecast =
      R"("forecast":{"alert":false,"critical_in_seconds":null,"emergency_in_seconds":null,)"
      R"("trend_bytes_per_second":0,"confidence_percent":0}})";
  TestServer server;
  EXPECT_EQ(server.answer(get("/health")).body,
            R"({"status":"healthy","service":"pensieve-anthropic-proxy","memory":{"status":)"
            R"("Safe","available_gb":"8.00","accepting_requests":true,"limited_by":"machine",)"
            R"("total_gb":"16.00"},"model":{"id":"scripted","state":"unloaded"},)"
            R"("pressure":{"rung":"none","whose":"none","done":[]},)" +
                kNoForecast);
  server.set_available(768_MiB);
  const Answer degraded = server.answer(get("/health"));
  EXPECT_EQ(degraded.status, 200U);
  constexpr std::string_view kMeasures =
      R"("done":["caches stop growing","prompts are processed in smaller steps",)"
      R"("prefixes in RAM go to disk and unused KV cells are given back",)"
      R"("models that serve nobody are unloaded","new requests are refused"]},)";
  EXPECT_EQ(degraded.body,
            R"({"status":"degraded","service":"pensieve-anthropic-proxy","memory":{"status":)"
            R"("Critical","available_gb":"0.75","accepting_requests":false,"limited_by":)"
            R"("machine","total_gb":"16.00"},"model":{"id":"scripted","state":"unloaded"},)"
            R"("pressure":{"rung":"refuse","whose":"others",)" +
                std::string(kMeasures) + kNoForecast);
  server.memory.fail("no such file");
  server.let_pass(seconds(4));
  EXPECT_EQ(server.answer(get("/health")).body,
            R"({"status":"degraded","service":"pensieve-anthropic-proxy","memory":{"status":)"
            R"("Critical","available_gb":"unknown","accepting_requests":false,)"
            R"("reading_failed":"no such file"},"model":{"id":"scripted","state":"unloaded"},)"
            R"("pressure":{"rung":"refuse","whose":"unknown",)" +
                std::string(kMeasures) + kNoForecast);
}

TEST(MemoryGuard, BothHeadersAreOnEveryAnswer) {
  TestServer::Options options;
  options.connection.body_bytes_max = 1000;
  options.connection.header_bytes_max = 4000;
  TestServer server(std::move(options));
  struct Case {
    std::string request;
    unsigned status;
  };
  const std::vector<Case> cases = {
      {get("/"), 200},
      {get("/health"), 200},
      {get("/v1/models"), 200},
      {get("/v1/models?limit=0"), 400},
      {get("/v1/models/none"), 404},
      {get("/v1/pensieve/ps"), 200},
      {post("/v1/pensieve/clear-cache", ""), 200},
      {post("/v1/pensieve/stop", ""), 200},
      {get("/nothing"), 404},
      {get("/v1/messages"), 405},
      {post("/v1/messages", "no JSON"), 400},
      {post("/v1/messages", std::string(1001, 'x')), 413},
      {get("/", "x-long: " + std::string(4000, 'x') + "\r\n"), 431},
      {"nonsense\r\n\r\n", 400},
      {"OPTIONS / HTTP/1.1\r\nhost: localhost\r\n\r\n", 204},
      {"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n", 403},
      {post("/v1/messages/count_tokens",
            R"({"model":"scripted","messages":[{"role":"user","content":"x"}]})"),
       200},
      {ask("say hello"), 200},
      {ask_stream("say hello"), 200},
      {ask("say hello", R"("stop_sequences":[1])"), 400},
  };
  for (const Case& each : cases) {
    const Answer answer = server.answer(each.request);
    EXPECT_EQ(answer.status, each.status) << each.request;
    expect_both_headers(answer, "Safe", "8.00");
    EXPECT_TRUE(answer.header("request-id").starts_with("req_")) << each.request;
  }
}

TEST(MemoryGuard, DefaultSettingsIncludeTheGuard) {
  const ServerOptions options;
  EXPECT_EQ(options.monitor.floors.caution, 3_GiB);
  EXPECT_EQ(options.monitor.floors.warning, 2_GiB);
  EXPECT_EQ(options.monitor.floors.critical, 1_GiB);
  EXPECT_EQ(options.monitor.floors.emergency, 512_MiB);
  EXPECT_EQ(options.pool.floors.critical, 1_GiB);
  // A server made of nothing but defaults refuses; there is no option that takes the guard away.
  TestServer::Options defaults;
  defaults.service = options.service;
  defaults.connection = options.connection;
  defaults.monitor = options.monitor;
  TestServer server(std::move(defaults));
  EXPECT_EQ(answer_at(server, below(1_GiB)).status, 503U);
}

}  // namespace
}  // namespace pensieve::gateway
