// What clients see of the forecast and of the history.
#include <string>

#include <gtest/gtest.h>

#include "gateway/history_page.h"
#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Falls by 50 MiB a second from 4 GiB on, for so many seconds.
void let_fall(TestServer& server, std::uint64_t for_seconds) {
  for (std::uint64_t second = 0; second < for_seconds; ++second) {
    server.memory.set_available(Bytes((4096 - 50 * second) << 20));
    server.let_pass(seconds(1));
  }
}

TEST(ForecastToClients, AnAlertIsInTheHeaderAndInHealth) {
  TestServer server;
  EXPECT_EQ(server.answer(get("/health")).header("x-memory-forecast"), "");
  let_fall(server, 40);
  const Answer answer = server.answer(get("/health"));
  EXPECT_TRUE(answer.header("x-memory-forecast").starts_with("critical-in=2"))
      << answer.header("x-memory-forecast");
  EXPECT_NE(answer.body.find(R"("forecast":{"alert":true,"critical_in_seconds":2)"),
            std::string::npos)
      << answer.body;
  const Answer metrics = server.answer(get("/metrics"));
  EXPECT_NE(metrics.body.find("\npensieve_forecast_alert 1\n"), std::string::npos);
  EXPECT_NE(metrics.body.find("\npensieve_forecast_alerts_total 1\n"), std::string::npos);
}

TEST(ForecastToClients, WithoutATrendThereIsNoHeaderAndHealthSaysSo) {
  TestServer server;
  server.let_pass(seconds(1));
  const Answer answer = server.answer(get("/health"));
  EXPECT_EQ(answer.header("x-memory-forecast"), "");
  EXPECT_NE(answer.body.find(R"("forecast":{"alert":false,"critical_in_seconds":null,)"
                             R"("emergency_in_seconds":null,"trend_bytes_per_second":0,)"
                             R"("confidence_percent":0})"),
            std::string::npos)
      << answer.body;
}

TEST(HistoryToClients, TheLastHourAndDayAreServedAsColumns) {
  TestServer server;
  let_fall(server, 3);
  const Answer hour = server.answer(get("/v1/pensieve/memory/history"));
  EXPECT_EQ(hour.status, 200U);
  EXPECT_TRUE(hour.body.starts_with(R"({"window":"hour","step_seconds":1,"entries":)"))
      << hour.body;
  EXPECT_NE(hour.body.find(R"("available_bytes_min":[)"), std::string::npos);
  const Answer day = server.answer(get("/v1/pensieve/memory/history?window=day"));
  EXPECT_TRUE(day.body.starts_with(R"({"window":"day","step_seconds":60,"entries":1,)"))
      << day.body;
  EXPECT_EQ(server.answer(get("/v1/pensieve/memory/history?window=year")).status, 400U);
}

TEST(HistoryBody, WhatIsNotKnownIsNull) {
  memory::History history;
  const TimePoint start{};
  history.record(4_GiB, memory::Level::kSafe, 1_GiB, start);
  history.record(std::nullopt, memory::Level::kCritical, 1_GiB, start + seconds(1));
  history.record(1_GiB, memory::Level::kWarning, 1_GiB, start + seconds(2) + milliseconds(1));
  EXPECT_EQ(history_body(history, "window=hour").value(),
            R"({"window":"hour","step_seconds":1,"entries":3,"levels":["Safe","Caution","Warning",)"
            R"("Critical","Emergency"],"available_bytes_min":[4294967296,null,1073741824],)"
            R"("available_bytes_avg":[4294967296,null,1073741824],)"
            R"("available_bytes_max":[4294967296,null,1073741824],)"
            R"("held_bytes":[1073741824,null,1073741824],"level":[0,null,2]})");
  EXPECT_EQ(history_body(history, "window=year"), std::nullopt);
}

TEST(HistoryBody, AFullHourStaysSmall) {
  memory::History history;
  for (int second = 0; second < 4000; ++second) {
    history.record(Bytes(1ULL << 40), memory::Level::kSafe, Bytes(1ULL << 40),
                   TimePoint() + seconds(second));
  }
  EXPECT_LT(history_body(history, "").value().size(), 240'000U);
}

}  // namespace
}  // namespace pensieve::gateway
