#include "cli/plan.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "cli/commands.h"
#include "cli/server_call.h"
#include "cli/table.h"

namespace pensieve::cli {
namespace {

namespace json = boost::json;

std::optional<std::uint64_t> minus(std::optional<std::uint64_t> from, std::uint64_t what) {
  if (!from) return std::nullopt;
  return *from > what ? *from - what : 0;
}

json::value figure(const std::optional<std::uint64_t>& count) {
  return count ? json::value(*count) : json::value(nullptr);
}

std::string window_text(const std::optional<std::uint32_t>& tokens) {
  if (!tokens) return "unknown";
  return *tokens == 0 ? std::string("none") : fmt::format("{} tokens", *tokens);
}

std::string_view name(Fit fit) {
  switch (fit) {
    case Fit::kNow:
      return "now";
    case Fit::kAfterUnload:
      return "after_unload";
    case Fit::kNotNow:
      return "not_now";
    case Fit::kNever:
      return "never";
    case Fit::kUnknown:
      break;
  }
  return "unknown";
}

std::string verdict(const PlanReport& report) {
  switch (fit_of(report)) {
    case Fit::kNow:
      return "It fits now.";
    case Fit::kAfterUnload:
      return fmt::format("It fits once {} ({}), which nobody uses, is unloaded.",
                         report.memory.idle_model, size_text(report.memory.idle_bytes));
    case Fit::kNotNow:
      return "It does not fit now; it would if other programs gave memory back.";
    case Fit::kNever:
      return "It never fits this machine; a smaller --context or model helps.";
    case Fit::kUnknown:
      break;
  }
  return "Whether it fits is not known: the available memory cannot be read.";
}

}  // namespace

std::optional<std::uint64_t> MemoryNow::room() const {
  return minus(available, outstanding + floor);
}

std::optional<std::uint64_t> MemoryNow::room_after_unload() const {
  if (!available) return std::nullopt;
  return minus(*available + idle_bytes, outstanding + floor);
}

std::optional<std::uint64_t> MemoryNow::room_ever() const {
  return minus(total, floor);
}

std::uint64_t PlanReport::total_bytes() const {
  return weights_mapped_bytes + weights_copied_bytes + kv_bytes + compute_bytes + process_bytes +
         image_bytes + grammar_bytes;
}

Fit fit_of(const PlanReport& report) {
  const std::uint64_t needed = report.total_bytes();
  const auto holds = [&](const std::optional<std::uint64_t>& room) {
    return room && needed <= *room;
  };
  if (!report.memory.room() || !report.memory.room_ever()) return Fit::kUnknown;
  if (holds(report.memory.room())) return Fit::kNow;
  if (!report.memory.idle_model.empty() && holds(report.memory.room_after_unload())) {
    return Fit::kAfterUnload;
  }
  return holds(report.memory.room_ever()) ? Fit::kNotNow : Fit::kNever;
}

ExitCode exit_code_of(Fit fit) {
  switch (fit) {
    case Fit::kNow:
    case Fit::kAfterUnload:
      return ExitCode::kOk;
    case Fit::kNever:
      return ExitCode::kDoesNotFit;
    case Fit::kNotNow:
    case Fit::kUnknown:
      break;
  }
  return ExitCode::kRefusedForMemory;
}

std::string plan_text(const PlanReport& report) {
  std::string text = fmt::format("{} ({}), window {} of {} tokens, {} in parallel\n\n",
                                 report.model, report.engine, report.context_tokens,
                                 report.context_train_tokens, report.parallel);
  std::vector<std::vector<std::string>> rows{
      {"PART", "SIZE"},
      {"weights, mapped", size_text(report.weights_mapped_bytes)},
      {"weights, copied", size_text(report.weights_copied_bytes)},
      {"KV cache", size_text(report.kv_bytes)},
      {"compute buffers", size_text(report.compute_bytes)},
      {"process and tokens", size_text(report.process_bytes)}};
  if (report.image_bytes > 0) rows.push_back({"images", size_text(report.image_bytes)});
  if (report.grammar_bytes > 0) rows.push_back({"grammars", size_text(report.grammar_bytes)});
  if (report.raised_bytes > 0) {
    rows.push_back({"  of it, from earlier runs", size_text(report.raised_bytes)});
  }
  if (report.lowered_bytes > 0) {
    rows.push_back({"  less, from earlier runs", size_text(report.lowered_bytes)});
  }
  rows.push_back({"total", size_text(report.total_bytes())});
  text += aligned(rows, {false, true});
  const MemoryNow& memory = report.memory;
  text += "\n" + aligned({{fmt::format("MEMORY OF {}", memory.source), "SIZE"},
                          {"available", size_text(memory.available)},
                          {"promised, not yet taken", size_text(memory.outstanding)},
                          {"kept free", size_text(memory.floor)},
                          {"room", size_text(memory.room())}},
                         {false, true});
  text +=
      fmt::format("\n{}\nLargest window now: {}; with the machine to itself: {}\n", verdict(report),
                  window_text(report.largest_now), window_text(report.largest_ever));
  if (report.last_run) {
    const LastRun& last = *report.last_run;
    const double ratio = static_cast<double>(last.peak_bytes) /
                         static_cast<double>(std::max<std::uint64_t>(last.planned_bytes, 1));
    text += fmt::format(
        "Measured in the last of {} run{}: {} at most beside mapped weights, {:.0f} % of the {} "
        "estimated{}; {} resident\n",
        last.runs, last.runs == 1 ? "" : "s", size_text(last.peak_bytes), 100 * ratio,
        size_text(last.planned_bytes), last.was_full ? ", with a full cache" : "",
        size_text(last.resident_peak_bytes));
  } else {
    text += "Never measured: no worker of it has run and ended here.\n";
  }
  return without_controls(text);
}

std::string plan_json(const PlanReport& report) {
  const MemoryNow& memory = report.memory;
  json::object body{{"model", report.model},
                    {"engine", report.engine},
                    {"path", report.path},
                    {"context_tokens", report.context_tokens},
                    {"context_train_tokens", report.context_train_tokens},
                    {"parallel", report.parallel},
                    {"estimate",
                     {{"weights_mapped_bytes", report.weights_mapped_bytes},
                      {"weights_copied_bytes", report.weights_copied_bytes},
                      {"kv_bytes", report.kv_bytes},
                      {"compute_bytes", report.compute_bytes},
                      {"process_bytes", report.process_bytes},
                      {"image_bytes", report.image_bytes},
                      {"grammar_bytes", report.grammar_bytes},
                      {"raised_bytes", report.raised_bytes},
                      {"lowered_bytes", report.lowered_bytes},
                      {"total_bytes", report.total_bytes()}}},
                    {"memory",
                     {{"source", memory.source},
                      {"available_bytes", figure(memory.available)},
                      {"total_bytes", figure(memory.total)},
                      {"outstanding_bytes", memory.outstanding},
                      {"floor_bytes", memory.floor},
                      {"room_bytes", figure(memory.room())}}},
                    {"fits", name(fit_of(report))},
                    {"largest_context_now",
                     report.largest_now ? json::value(*report.largest_now) : json::value()},
                    {"largest_context_ever",
                     report.largest_ever ? json::value(*report.largest_ever) : json::value()}};
  if (!memory.idle_model.empty()) {
    body["would_unload"] = {{"model", memory.idle_model}, {"bytes", memory.idle_bytes}};
  }
  if (report.last_run) {
    const LastRun& last = *report.last_run;
    body["last_run"] = {{"runs", last.runs},
                        {"planned_bytes", last.planned_bytes},
                        {"peak_bytes", last.peak_bytes},
                        {"resident_peak_bytes", last.resident_peak_bytes},
                        {"was_full", last.was_full}};
  }
  return json::serialize(body) + "\n";
}

std::optional<MemoryNow> memory_of_server(const Endpoint& endpoint) {
  const auto body = call(endpoint, {.target = "/v1/pensieve/ps"});
  if (!body) return std::nullopt;
  const json::value& memory = member(*body, "memory");
  const auto outstanding = count_member(memory, "outstanding_bytes");
  const auto floor = count_member(memory, "floor_bytes");
  if (!outstanding || !floor) return std::nullopt;  // Another program, or an older one.
  MemoryNow now{.source = endpoint.url(),
                .available = count_member(memory, "available_bytes"),
                .total = count_member(memory, "total_bytes"),
                .outstanding = *outstanding,
                .floor = *floor};
  const json::array* models = member(*body, "models").if_array();
  if (models == nullptr || models->empty()) return now;
  const json::value& model = models->front();
  if (text_member(model, "state") != "ready" || count_member(model, "requests_active") != 0) {
    return now;
  }
  if (const auto reserved = count_member(model, "memory_reserved_bytes")) {
    now.idle_model = text_member(model, "id");
    now.idle_bytes = *reserved;
  }
  return now;
}

ExitCode show_plan(const config::Settings& settings, const Endpoint& endpoint, const Hooks& hooks,
                   bool as_json, const Console& console) {
  const std::optional<MemoryNow> server =
      settings.port == 0 ? std::nullopt : memory_of_server(endpoint);
  const std::expected<PlanReport, PlanFailure> report = hooks.plan(settings, server);
  if (!report) return cli::report(console, report.error().code, report.error().message);
  console.out(as_json ? plan_json(*report) : plan_text(*report));
  return exit_code_of(fit_of(*report));
}

}  // namespace pensieve::cli
