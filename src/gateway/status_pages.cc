#include "gateway/status_pages.h"

#include <chrono>
#include <string>
#include <utility>
#include <variant>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "gateway/metrics.h"
#include "memory/admission.h"
#include "memory/report.h"

namespace pensieve::gateway {
namespace {

namespace json = boost::json;

HttpResponse json_page(const json::object& body) {
  HttpResponse response;
  response.body = json::serialize(body);
  return response;
}

}  // namespace

bool StatusPages::has(std::string_view path) {
  return path == "/" || path == "/health" || path == "/metrics" || path == "/v1/pensieve/ps";
}

std::optional<HttpResponse> StatusPages::page(std::string_view path, const Serving& serving) {
  if (path == "/") return front_page();
  if (path == "/health") return health(serving);
  if (path == "/metrics") return metrics(serving);
  if (path == "/v1/pensieve/ps") return ps(serving);
  return std::nullopt;
}

HttpResponse StatusPages::health(const Serving& serving) {
  const memory::Monitor::Status status = monitor_.check();
  const bool accepting =
      !serving.draining && std::holds_alternative<memory::Admit>(memory::decide(status));
  json::object memory{{"status", memory::memory_status_header(status)},
                      {"available_gb", memory::available_memory_header(status)},
                      {"accepting_requests", accepting}};
  if (!status.limited_by.empty()) memory["limited_by"] = status.limited_by;
  if (status.total) memory["total_gb"] = memory::gb_text(*status.total);
  if (!status.last_failure.empty()) memory["reading_failed"] = status.last_failure;
  return json_page(
      {{"status", accepting          ? "healthy"
                  : serving.draining ? "draining"
                                     : "degraded"},
       {"service", "pensieve-anthropic-proxy"},
       {"memory", std::move(memory)},
       {"model", {{"id", pool_.model().id}, {"state", model::name(pool_.status().state)}}}});
}

HttpResponse StatusPages::metrics(const Serving& serving) {
  MetricPage page;
  add_build(page);
  add_memory(page, monitor_.status());
  add_ledger(page, ledger_);
  add_model(page, pool_.model().id, pool_.status());
  add_traffic(page, traffic_, serving.requests_active);
  HttpResponse response;
  response.content_type = kMetricsContentType;
  response.body = page.text();
  return response;
}

HttpResponse StatusPages::ps(const Serving& serving) {
  const model::Pool::Status status = pool_.status();
  json::object ends;
  for (const auto& [end, count] : status.ends) ends[worker::name(end)] = count;
  json::object model{
      {"id", pool_.model().id},
      {"engine", pool_.model().engine},
      {"state", model::name(status.state)},
      {"pid", status.pid},
      {"context_tokens", status.info ? status.info->context_tokens : 0},
      {"parallel", pool_.sequences_max()},
      {"requests_active", serving.requests_active},
      {"requests_running", status.heartbeat.running},
      {"requests_waiting", status.heartbeat.waiting},
      {"memory_reserved_bytes", status.reserved.count()},
      {"memory_resident_bytes", status.heartbeat.resident.count()},
      {"memory_anonymous_bytes", status.heartbeat.anonymous.count()},
      {"kv_tokens_cached", status.heartbeat.cached_tokens},
      {"uptime_seconds", std::chrono::duration_cast<std::chrono::seconds>(status.uptime).count()},
      {"worker_ends", std::move(ends)}};
  return json_page({{"models", json::array{std::move(model)}}});
}

HttpResponse StatusPages::front_page() {
  const memory::Monitor::Status status = monitor_.check();
  HttpResponse response;
  response.content_type = "text/plain; charset=utf-8";
  response.body = fmt::format(
      "Pensieve serves {} through the Anthropic Messages API.\n"
      "Memory: {} ({}GB available)\n\n"
      "POST /v1/messages  POST /v1/messages/count_tokens  GET /v1/models  GET /health\n",
      pool_.model().id, memory::memory_status_header(status),
      memory::available_memory_header(status));
  return response;
}

}  // namespace pensieve::gateway
