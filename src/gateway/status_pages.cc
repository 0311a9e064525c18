#include "gateway/status_pages.h"

#include <chrono>
#include <string>
#include <utility>
#include <variant>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "api/error.h"
#include "gateway/history_page.h"
#include "gateway/metrics.h"
#include "gateway/openapi.h"
#include "memory/admission.h"
#include "memory/report.h"

namespace pensieve::gateway {
namespace {

namespace json = boost::json;

constexpr std::string_view kHistoryPath = "/v1/pensieve/memory/history";

json::object forecast_object(const memory::Forecast& forecast) {
  const auto seconds = [](const std::optional<Duration>& in) {
    if (!in) return json::value(nullptr);
    return json::value(std::chrono::duration_cast<std::chrono::seconds>(*in).count());
  };
  return {{"alert", forecast.alert},
          {"critical_in_seconds", seconds(forecast.critical_in)},
          {"emergency_in_seconds", seconds(forecast.emergency_in)},
          {"trend_bytes_per_second", static_cast<std::int64_t>(forecast.bytes_per_second)},
          {"confidence_percent", static_cast<int>(forecast.confidence * 100)}};
}

HttpResponse json_page(const json::object& body) {
  HttpResponse response;
  response.body = json::serialize(body);
  return response;
}

json::array to_json(const Protections& protections) {
  json::array all;
  for (const Protection& one : protections) {
    all.push_back(json::object{{"name", one.name}, {"holds", one.holds}, {"detail", one.detail}});
  }
  return all;
}

}  // namespace

bool StatusPages::has(std::string_view path) {
  return path == "/" || path == "/health" || path == "/metrics" || path == "/openapi.json" ||
         path == "/v1/pensieve/ps" || path == kHistoryPath;
}

std::optional<HttpResponse> StatusPages::page(std::string_view path, const Serving& serving) {
  if (path == "/") return front_page();
  if (path == "/health") return health(serving);
  if (path == "/metrics") return metrics(serving);
  if (path == "/openapi.json") {
    HttpResponse response;
    response.body = openapi_document();
    return response;
  }
  if (path == "/v1/pensieve/ps") return ps(serving);
  if (path == kHistoryPath) return history(serving);
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
  if (!status.worsened_by.empty()) memory["worsened_by"] = status.worsened_by;
  if (!status.last_failure.empty()) memory["reading_failed"] = status.last_failure;
  const memory::Governor::Status governed = governor_.status(clock_.now());
  json::object pressure{{"rung", memory::name(governed.rung)},
                        {"whose", memory::name(governed.whose)},
                        {"done", json::array(governed.done.begin(), governed.done.end())}};
  return json_page(
      {{"status", accepting          ? "healthy"
                  : serving.draining ? "draining"
                                     : "degraded"},
       {"service", "pensieve-anthropic-proxy"},
       {"memory", std::move(memory)},
       {"model", {{"id", pool_.model().id}, {"state", model::name(pool_.status().state)}}},
       {"pressure", std::move(pressure)},
       {"forecast", forecast_object(monitor_.forecast())}});
}

HttpResponse StatusPages::metrics(const Serving& serving) {
  MetricPage page;
  add_build(page);
  add_memory(page, monitor_.status());
  add_forecast(page, monitor_.forecast());
  add_ledger(page, ledger_);
  add_buffers(page, buffers_);
  add_pressure(page, governor_.status(clock_.now()));
  add_model(page, pool_.model().id, pool_.status());
  add_prefixes(page, pool_.model().id, pool_.status());
  add_batches(page, serving.batches);
  add_connections(page, serving.connections);
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
      {"memory_parked_reserved_bytes", status.parked_reserved.count()},
      {"memory_parked_bytes", status.heartbeat.parked_bytes.count()},
      {"kv_tokens_cached", status.heartbeat.cached_tokens},
      {"prefixes", worker::to_json(status.heartbeat.prefixes)},
      {"kv_cells", status.cells},
      {"kv_cells_used", status.heartbeat.cells_used},
      {"kv_cells_max", status.cells_max},
      {"sequences_max", status.limits.sequences_max},
      {"step_tokens_max", status.limits.step_tokens_max},
      {"uptime_seconds", std::chrono::duration_cast<std::chrono::seconds>(status.uptime).count()},
      {"worker_ends", std::move(ends)},
      {"protections", to_json(status.protections)}};
  const memory::Monitor::Status memory = monitor_.status();
  const auto figure = [](const std::optional<Bytes>& bytes) {
    return bytes ? json::value(bytes->count()) : json::value(nullptr);
  };
  return json_page({{"models", json::array{std::move(model)}},
                    {"memory",
                     {{"level", memory::name(memory.level)},
                      {"available_bytes", figure(memory.available)},
                      {"total_bytes", figure(memory.total)},
                      {"promised_bytes", ledger_.promised().count()},
                      {"outstanding_bytes", ledger_.outstanding().count()},
                      {"buffers_bytes", buffers_.held().count()},
                      {"floor_bytes", buffers_.floors().critical.count()}}}});
}

HttpResponse StatusPages::history(const Serving& serving) {
  HttpResponse response;
  if (auto body = history_body(monitor_.history(), serving.query)) {
    response.body = std::move(*body);
    return response;
  }
  const api::ApiError error = api::invalid_request("window: use window=hour or window=day");
  response.status = error.status;
  response.body = api::error_body(error, std::string(serving.request_id));
  return response;
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
