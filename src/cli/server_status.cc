// pensieve health, ps, stop, clear-cache.
#include <algorithm>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <boost/json/serialize.hpp>

#include "cli/commands.h"
#include "cli/server_call.h"
#include "cli/table.h"

namespace pensieve::cli {
namespace {

namespace json = boost::json;

ExitCode report(const Console& console, const Failure& failure) {
  return cli::report(console, failure.code, failure.message);
}

/// The state of a model may be the worker's last words; a terminal must not obey them.
std::string cell(const json::value& row, std::string_view name) {
  if (const auto count = count_member(row, name)) return fmt::format("{}", *count);
  return without_controls(text_member(row, name));
}

}  // namespace

ExitCode show_health(const Endpoint& endpoint, bool as_json, const Console& console) {
  const auto response = send(endpoint, {.target = "/health"});
  if (!response) return report(console, failure_of(response.error()));
  const auto body = parse_json(response->body);
  if (!body) return report(console, body.error());
  const json::value& memory = member(*body, "memory");
  const bool* accepting = member(memory, "accepting_requests").if_bool();
  if (accepting == nullptr) return report(console, failure_of(*response));
  if (as_json) {
    console.out(response->body + "\n");
  } else {
    console.out(without_controls(fmt::format(
        "memory: {}, {} GB available\naccepting requests: {}\n", text_member(memory, "status"),
        text_member(memory, "available_gb"), *accepting ? "yes" : "no")));
  }
  return *accepting ? ExitCode::kOk : ExitCode::kRefusedForMemory;
}

ExitCode show_models(const Endpoint& endpoint, bool as_json, const Console& console) {
  const auto body = call(endpoint, {.target = "/v1/pensieve/ps"});
  if (!body) return report(console, body.error());
  const json::array* models = member(*body, "models").if_array();
  if (models == nullptr) {
    return cli::report(console, ExitCode::kFailure, "the answer has no list of models");
  }
  if (as_json) {
    console.out(json::serialize(*body) + "\n");
    return ExitCode::kOk;
  }
  if (models->empty()) {
    console.out("no model is loaded\n");
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> rows{{"MODEL", "ENGINE", "STATE", "PID", "CONTEXT",
                                              "RUNNING", "WAITING", "KV TOKENS", "RESERVED",
                                              "RESIDENT", "UP"}};
  for (const json::value& model : *models) {
    rows.push_back({cell(model, "id"), cell(model, "engine"), cell(model, "state"),
                    cell(model, "pid"), cell(model, "context_tokens"),
                    fmt::format("{}/{}", cell(model, "requests_running"), cell(model, "parallel")),
                    cell(model, "requests_waiting"), cell(model, "kv_tokens_cached"),
                    size_text(count_member(model, "memory_reserved_bytes")),
                    size_text(count_member(model, "memory_resident_bytes")),
                    age_text(count_member(model, "uptime_seconds"))});
  }
  std::vector<bool> right(rows.front().size(), true);
  std::fill_n(right.begin(), 3, false);
  console.out(aligned(rows, right));
  return ExitCode::kOk;
}

ExitCode stop_server(const Endpoint& endpoint, Duration limit, const Console& console) {
  const auto answer =
      send(endpoint, {.method = "POST", .target = "/v1/pensieve/stop", .body = "{}"});
  // A server that ends at once may close the connection in the middle of its answer.
  if (!answer && answer.error().kind != HttpError::Kind::kBroken) {
    return report(console, failure_of(answer.error()));
  }
  if (answer && answer->status / 100 != 2) return report(console, failure_of(*answer));
  if (wait_until_closed(endpoint, limit)) {
    console.out(fmt::format("stopped: {} is closed\n", endpoint.url()));
    return ExitCode::kOk;
  }
  return cli::report(
      console, ExitCode::kFailure,
      fmt::format("{} is still open after {} s; `pensieve ps` shows what runs there",
                  endpoint.url(), std::chrono::duration_cast<std::chrono::seconds>(limit).count()));
}

ExitCode clear_cache(const Endpoint& endpoint, bool stored_too, const Console& console) {
  const std::string target =
      std::string("/v1/pensieve/clear-cache") + (stored_too ? "?stored=true" : "");
  const auto body = call(endpoint, {.method = "POST", .target = target, .body = "{}"});
  if (!body) return report(console, body.error());
  const auto dropped = count_member(*body, "dropped_tokens");
  console.out(fmt::format(
      "{} came back, {} cached tokens dropped\navailable: {} before, {} after\n",
      size_text(count_member(*body, "freed_bytes")), dropped ? fmt::format("{}", *dropped) : "?",
      size_text(count_member(*body, "available_bytes_before")),
      size_text(count_member(*body, "available_bytes_after"))));
  if (stored_too) {
    console.out(fmt::format("{} are being removed from the disk\n",
                            size_text(count_member(*body, "removed_bytes"))));
  }
  return ExitCode::kOk;
}

}  // namespace pensieve::cli
