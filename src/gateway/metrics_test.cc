// What /metrics says, and that docs/metrics.md lists exactly that.
#include "gateway/metrics.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

/// All families, from statuses in which everything is known.
MetricPage whole_page() {
  MetricPage page;
  memory::Monitor::Status memory;
  memory.available = 3_GiB;
  memory.total = 16_GiB;
  model::Pool::Status model;
  model.state = model::State::kReady;
  model.info.emplace();
  Traffic traffic;
  traffic.responses[200] = 1;
  add_build(page);
  add_memory(page, memory);
  add_forecast(page, memory::Forecast());
  memory::Ledger ledger;
  memory::FakeMemorySource source;
  FakeClock clock;
  memory::Monitor monitor(source, clock, {});
  add_ledger(page, ledger);
  add_buffers(page, BufferAccount(ledger, monitor, {}));
  add_pressure(page, memory::Governor::Status());
  add_model(page, "m", model);
  add_prefixes(page, "m", model);
  add_batches(page, Batches::Status());
  add_connections(page, ConnectionTable::Status());
  add_traffic(page, traffic, 0);
  return page;
}

std::string row_of(const MetricDescription& metric) {
  std::vector<std::string> labels;
  for (const std::string& label : metric.labels) labels.push_back("`" + label + "`");
  return fmt::format("| `{}` | {} | {} | {} | {} |", metric.name, metric.type, metric.unit,
                     fmt::join(labels, " "), metric.help);
}

TEST(Metrics, TheDocumentListsEveryMetricOnceAndNoOther) {
  std::vector<std::string> documented;
  std::ifstream file(PENSIEVE_METRICS_DOCUMENT);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("| `")) documented.push_back(line);
  }
  std::vector<std::string> rendered;
  const MetricPage page = whole_page();
  for (const MetricDescription& metric : page.descriptions()) rendered.push_back(row_of(metric));
  const std::string wanted = fmt::format("{}", fmt::join(rendered, "\n"));
  std::sort(documented.begin(), documented.end());
  std::sort(rendered.begin(), rendered.end());
  EXPECT_EQ(documented, rendered) << "docs/metrics.md has to say:\n" << wanted;
}

TEST(Metrics, NamesAreUniqueAndSayWhatTheyCount) {
  std::set<std::string> names;
  const MetricPage page = whole_page();
  for (const MetricDescription& metric : page.descriptions()) {
    EXPECT_TRUE(names.insert(metric.name).second) << metric.name;
    EXPECT_TRUE(metric.name.starts_with("pensieve_")) << metric.name;
    EXPECT_EQ(metric.name.ends_with("_total"), metric.type == "counter") << metric.name;
    EXPECT_TRUE(metric.help.ends_with('.')) << metric.help;
    if (metric.unit == "bytes" || metric.unit == "seconds" || metric.unit == "tokens") {
      EXPECT_NE(metric.name.find("_" + metric.unit), std::string::npos) << metric.name;
    }
  }
}

TEST(Metrics, WhatIsNotKnownHasNoSample) {
  MetricPage page;
  add_memory(page, memory::Monitor::Status());
  add_model(page, "m", model::Pool::Status());
  const std::string text = page.text();
  EXPECT_NE(text.find("# TYPE pensieve_memory_available_bytes gauge\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("\npensieve_memory_available_bytes"), std::string::npos) << text;
  EXPECT_EQ(text.find("\npensieve_worker_resident_bytes"), std::string::npos) << text;
  EXPECT_NE(text.find("\npensieve_memory_level{level=\"Critical\"} 1\n"), std::string::npos)
      << text;
}

TEST(Metrics, EachProtectionOfAWorkerIsASample) {
  MetricPage page;
  model::Pool::Status status;
  status.protections = {{"no network", true, "seccomp", ""}, {"memory limit", false, "why", ""}};
  add_model(page, "m", status);
  const std::string text = page.text();
  const std::string name = "\npensieve_worker_protection_held{model=\"m\",protection=";
  EXPECT_NE(text.find(name + "\"no network\"} 1\n"), std::string::npos) << text;
  EXPECT_NE(text.find(name + "\"memory limit\"} 0\n"), std::string::npos) << text;
}

TEST(Metrics, FiguresAreExact) {
  MetricPage page;
  memory::Monitor::Status memory;
  memory.available = Bytes((1ULL << 40) + 1);
  add_memory(page, memory);
  EXPECT_NE(page.text().find("\npensieve_memory_available_bytes 1099511627777\n"),
            std::string::npos)
      << page.text();
}

TEST(Metrics, ARequestIsSeenInTheFigures) {
  TestServer server;
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  EXPECT_EQ(server.answer(ask_stream("say hello")).status, 200U);
  const Answer answer = server.answer(get("/metrics"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  for (const std::string& line :
       {std::string("pensieve_responses_total{status=\"200\"} 2"),
        std::string("pensieve_messages_total{end=\"complete\"} 2"),
        std::string("pensieve_messages_total{end=\"client_gone\"} 0"),
        std::string("pensieve_active_requests 0"), std::string("pensieve_output_tokens_total 2"),
        std::string("pensieve_model_state{model=\"scripted\",state=\"ready\"} 1"),
        std::string("pensieve_worker_ends_total{model=\"scripted\",end=\"crashed\"} 0"),
        std::string("pensieve_memory_available_bytes 8589934592")}) {
    EXPECT_NE(answer.body.find("\n" + line + "\n"), std::string::npos) << line << answer.body;
  }
}

TEST(Metrics, ARefusalIsCountedByItsLevel) {
  TestServer server;
  server.set_available(700_MiB);
  EXPECT_EQ(server.answer(ask("say hello")).status, 503U);
  const std::string body = server.answer(get("/metrics")).body;
  EXPECT_NE(body.find("\npensieve_refusals_total{level=\"Critical\"} 1\n"), std::string::npos)
      << body;
  EXPECT_NE(body.find("\npensieve_responses_total{status=\"503\"} 1\n"), std::string::npos);
}

TEST(Metrics, TheWaysInWhichAMessageEndsAreToldApart) {
  TestServer server;
  EXPECT_EQ(server.answer(ask_stream("say hello; fail")).status, 200U);
  EXPECT_EQ(server.answer(ask("fail")).status, 500U);
  {
    HttpProbe gone = server.connect();
    gone.send(ask_stream("delay 5; endless word"));
    gone.head();
  }
  ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  const std::string body = server.answer(get("/metrics")).body;
  for (const char* end : {"error_event", "error_status", "client_gone"}) {
    EXPECT_NE(body.find(fmt::format("\npensieve_messages_total{{end=\"{}\"}} 1\n", end)),
              std::string::npos)
        << end << body;
  }
}

TEST(Metrics, ConnectionsAreCounted) {
  TestServer server;
  HttpProbe idle = server.connect();
  ASSERT_TRUE(server.wait_until([&] { return server.connections().size() == 1; }));
  const std::string body = server.answer(get("/metrics")).body;
  EXPECT_NE(body.find("\npensieve_open_connections 2\n"), std::string::npos) << body;
  EXPECT_NE(body.find("\npensieve_evicted_connections_total 0\n"), std::string::npos);
  EXPECT_NE(body.find("\npensieve_refused_connections_total 0\n"), std::string::npos);
}

TEST(Metrics, EvictedAndRefusedConnectionsAreTwoFigures) {
  MetricPage page;
  add_connections(page, ConnectionTable::Status{.open = 3, .evicted = 4, .refused = 5});
  EXPECT_NE(page.text().find("\npensieve_open_connections 3\n"), std::string::npos);
  EXPECT_NE(page.text().find("\npensieve_evicted_connections_total 4\n"), std::string::npos);
  EXPECT_NE(page.text().find("\npensieve_refused_connections_total 5\n"), std::string::npos);
}

TEST(Metrics, WithoutBatchesTheirFiguresHaveNoSample) {
  TestServer server;
  const std::string body = server.answer(get("/metrics")).body;
  EXPECT_NE(body.find("# TYPE pensieve_kept_batches gauge\n"), std::string::npos) << body;
  EXPECT_EQ(body.find("\npensieve_kept_batches{"), std::string::npos) << body;
}

TEST(Metrics, AKeyIsAskedForAsElsewhere) {
  TestServer::Options options;
  options.service.access.keys = {{.name = "", .secret = "secret"}};
  TestServer server(std::move(options));
  EXPECT_EQ(server.answer(get("/metrics")).status, 401U);
  EXPECT_EQ(server.answer(get("/metrics", "x-api-key: secret\r\n")).status, 200U);
}

}  // namespace
}  // namespace pensieve::gateway
