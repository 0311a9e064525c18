#include "gateway/metrics.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <string>

namespace pensieve::gateway {
namespace {

using memory::Level;
constexpr std::array kLevels{Level::kSafe, Level::kCaution, Level::kWarning, Level::kCritical,
                             Level::kEmergency};
constexpr std::array kDrifts{model::Drift::kUnknown, model::Drift::kWithin, model::Drift::kAbove,
                             model::Drift::kBelow};

std::string scope_name(memory::Scope scope) {
  return scope == memory::Scope::kOwn ? "own" : "machine";
}

double number(Bytes bytes) {
  return static_cast<double>(bytes.count());
}

double number(std::uint64_t count) {
  return static_cast<double>(count);
}

/// A counter that was never raised is zero: that is known.
template <class Key>
double counted(const std::map<Key, std::uint64_t>& counts, Key key) {
  const auto found = counts.find(key);
  return found == counts.end() ? 0.0 : number(found->second);
}

/// What the worker may use and uses of what grows: KV cells, parked states, steps.
void add_cells(MetricPage& page, const std::string& id, const model::Pool::Status& status) {
  const auto of_worker = [&](double value) {
    if (status.state == model::State::kReady) page.sample(value, {id});
  };
  page.gauge("pensieve_kv_cells", "cells", "KV cells that the worker has now.", {"model"});
  of_worker(status.cells);
  page.gauge("pensieve_kv_max_cells", "cells", "KV cells that the worker may ever have.",
             {"model"});
  of_worker(status.cells_max);
  page.gauge("pensieve_parked_reserved_bytes", "bytes",
             "Memory promised for parked states; part of what is reserved for the worker.",
             {"model"});
  of_worker(number(status.parked_reserved));
  page.gauge("pensieve_parked_bytes", "bytes", "States of idle sequences that are kept in RAM.",
             {"model"});
  of_worker(number(status.heartbeat.parked_bytes));
  page.gauge("pensieve_limit_sequences", "sequences",
             "Requests that the worker may run at once, by the memory ladder.", {"model"});
  of_worker(status.limits.sequences_max);
  page.gauge("pensieve_limit_step_tokens", "tokens",
             "Prompt tokens that the worker may take in one step, by the memory ladder.",
             {"model"});
  of_worker(status.limits.step_tokens_max);
  page.gauge("pensieve_kv_used_cells", "cells", "KV cells that hold a token, over all sequences.",
             {"model"});
  of_worker(status.heartbeat.cells_used);
}

}  // namespace

void add_build(MetricPage& page) {
  page.gauge("pensieve_build_info", "constant", "Always 1; the label says which version runs.",
             {"version"});
  page.sample(1, {PENSIEVE_VERSION});
}

void add_memory(MetricPage& page, const memory::Monitor::Status& status) {
  page.gauge("pensieve_memory_available_bytes", "bytes",
             "Memory that could be taken without swapping; no sample where it cannot be read.");
  if (status.available) page.sample(number(*status.available));
  page.gauge("pensieve_memory_total_bytes", "bytes",
             "Memory of what limits the available memory: the machine, or a memory group.");
  if (status.total) page.sample(number(*status.total));
  page.gauge("pensieve_memory_level", "flag",
             "1 for the level that counts now, 0 for the others; unknown counts as Critical.",
             {"level"});
  for (const Level level : kLevels) {
    page.sample(level == status.level ? 1 : 0, {std::string(memory::name(level))});
  }
  page.gauge("pensieve_memory_recovering", "flag",
             "1 while the last reading is better than the level, which holds on for a while.");
  page.sample(status.recovering ? 1 : 0);
  page.gauge(
      "pensieve_memory_worsened", "flag",
      "1 while signals (stalls, swapping, group events) make the level worse than measured.");
  page.sample(status.worsened_by.empty() ? 0 : 1);
  page.gauge("pensieve_memory_stall_ratio", "ratio",
             "Share of the time in which tasks waited for memory (PSI), 0 to 1: some of them, or "
             "all; of our own group, or of the machine.",
             {"tasks", "scope"});
  const memory::Signals signals = status.signals.value_or(memory::Signals());
  if (const auto& stalls = signals.stalls.value) {
    page.sample(stalls->some_percent / 100, {"some", scope_name(stalls->scope)});
    page.sample(stalls->full_percent / 100, {"all", scope_name(stalls->scope)});
  }
  page.gauge("pensieve_memory_swap_in_pages", "pages", "Pages that come back from swap per second.",
             {"scope"});
  if (const auto& swap_in = signals.swap_in.value; swap_in && swap_in->pages_per_second) {
    page.sample(*swap_in->pages_per_second, {scope_name(swap_in->scope)});
  }
  page.gauge("pensieve_memory_signals_unreadable", "flag",
             "1 while a signal that this machine has cannot be read; it counts as pressure.");
  page.sample(signals.any_unreadable() ? 1 : 0);
  page.counter("pensieve_memory_failed_reads_total", "readings",
               "Readings of the available memory that failed.");
  page.sample(number(status.failed_reads));
}

void add_forecast(MetricPage& page, const memory::Forecast& forecast) {
  const auto seconds = [](Duration in) { return std::chrono::duration<double>(in).count(); };
  page.gauge("pensieve_forecast_critical_seconds", "seconds",
             "Until available memory is Critical if it goes on like this; no sample where that is "
             "not in sight.");
  if (forecast.critical_in) page.sample(seconds(*forecast.critical_in));
  page.gauge("pensieve_forecast_emergency_seconds", "seconds", "The same until Emergency.");
  if (forecast.emergency_in) page.sample(seconds(*forecast.emergency_in));
  page.gauge("pensieve_forecast_trend_bytes", "bytes",
             "Change of the available memory per second; negative: it falls.");
  page.sample(forecast.bytes_per_second);
  page.gauge("pensieve_forecast_confidence", "ratio", "How sure the trend is, 0 to 1.");
  page.sample(forecast.confidence);
  page.gauge("pensieve_forecast_alert", "flag", "1 while a floor will be crossed soon.");
  page.sample(forecast.alert ? 1 : 0);
  page.counter("pensieve_forecast_alerts_total", "alerts", "Alerts that have begun.");
  page.sample(number(forecast.alerts));
}

void add_ledger(MetricPage& page, const memory::Ledger& ledger) {
  page.gauge("pensieve_ledger_promised_bytes", "bytes", "Memory promised to all holders.");
  page.sample(number(ledger.promised()));
  page.gauge("pensieve_ledger_outstanding_bytes", "bytes",
             "Promised memory that is not resident yet, so the available memory still shows it.");
  page.sample(number(ledger.outstanding()));
}

void add_buffers(MetricPage& page, const BufferAccount& buffers) {
  page.gauge("pensieve_buffers_held_bytes", "bytes",
             "Set aside for bodies, frames and answers of requests in the gateway.");
  page.sample(number(buffers.held()));
  page.gauge("pensieve_buffers_max_bytes", "bytes", "The most that may be set aside for them.");
  page.sample(number(buffers.bytes_max()));
}

void add_pressure(MetricPage& page, const memory::Governor::Status& status) {
  using memory::Deed;
  using memory::Rung;
  using memory::Whose;
  constexpr std::array kWhose{Whose::kNone, Whose::kOurs, Whose::kOthers, Whose::kUnknown};
  page.gauge("pensieve_pressure_rung", "flag",
             "1 for the rung of the ladder that is in force, 0 for the others.", {"rung"});
  for (std::size_t i = 0; i < memory::kRungCount; ++i) {
    const Rung rung = static_cast<Rung>(i);
    page.sample(rung == status.rung ? 1 : 0, {std::string(memory::name(rung))});
  }
  page.gauge("pensieve_pressure_whose", "flag", "1 for whose memory it is that is missing.",
             {"whose"});
  for (const Whose whose : kWhose) {
    page.sample(whose == status.whose ? 1 : 0, {std::string(memory::name(whose))});
  }
  page.counter("pensieve_pressure_transitions_total", "moves",
               "How often a rung of the ladder was entered or left.", {"rung", "move"});
  for (std::size_t i = 1; i < memory::kRungCount; ++i) {
    const std::string rung(memory::name(static_cast<Rung>(i)));
    page.sample(number(status.entered.at(i)), {rung, "entered"});
    page.sample(number(status.left.at(i)), {rung, "left"});
  }
  page.counter("pensieve_pressure_deeds_total", "deeds",
               "What was done to free memory: requests ended, models unloaded, loads stopped, "
               "engines dropped.",
               {"deed"});
  for (std::size_t i = 0; i < memory::kDeedCount; ++i) {
    page.sample(number(status.deeds.at(i)), {std::string(memory::name(static_cast<Deed>(i)))});
  }
}

namespace {

void add_trend(MetricPage& page, const std::string& id, const model::Pool::Status& status) {
  const bool ready = status.state == model::State::kReady;
  page.gauge("pensieve_worker_leaks", "flag",
             "1 where the worker's memory grows with its requests without a cause that is known.",
             {"model"});
  if (ready) page.sample(status.leaks ? 1 : 0, {id});
  page.gauge("pensieve_worker_owed_bytes", "bytes",
             "What requests that run may still take: KV cells that the cache has not grown to.",
             {"model"});
  if (ready) page.sample(number(status.owed.left), {id});
  page.counter("pensieve_worker_recycled_total", "workers",
               "Workers that were ended because they leak.", {"model"});
  page.sample(number(status.recycled), {id});
}

}  // namespace

void add_model(MetricPage& page, std::string_view model, const model::Pool::Status& status) {
  const std::string id(model);
  const bool ready = status.state == model::State::kReady;
  const auto of_worker = [&](double value) {
    if (ready) page.sample(value, {id});
  };
  page.gauge("pensieve_model_state", "flag", "1 for the state that the model is in.",
             {"model", "state"});
  for (const model::State state : model::kStates) {
    page.sample(state == status.state ? 1 : 0, {id, std::string(model::name(state))});
  }
  page.gauge("pensieve_model_context_tokens", "tokens", "The window that clients may use.",
             {"model"});
  if (status.info) page.sample(status.info->context_tokens, {id});
  page.gauge("pensieve_worker_reserved_bytes", "bytes", "Memory promised to the model's worker.",
             {"model"});
  page.sample(number(status.reserved), {id});
  page.gauge("pensieve_worker_resident_bytes", "bytes",
             "Resident memory of the worker, mapped weights included.", {"model"});
  of_worker(number(status.heartbeat.resident));
  page.gauge("pensieve_worker_anonymous_bytes", "bytes",
             "Resident memory of the worker that no file backs.", {"model"});
  of_worker(number(status.heartbeat.anonymous));
  const model::Reconciler::Status& reconciliation = status.reconciliation;
  const bool measured = ready && reconciliation.drift != model::Drift::kUnknown;
  page.gauge("pensieve_worker_excess_bytes", "bytes",
             "Held by the worker above its reservation, and booked beside it.", {"model"});
  if (measured) page.sample(number(reconciliation.excess), {id});
  page.gauge("pensieve_worker_drift", "flag",
             "1 for how the worker's memory stands to its reservation.", {"model", "drift"});
  for (const model::Drift drift : kDrifts) {
    page.sample(drift == reconciliation.drift ? 1 : 0, {id, std::string(model::name(drift))});
  }
  page.counter("pensieve_worker_drifts_total", "times",
               "Times that a worker was found far above or far below its reservation.", {"model"});
  page.sample(number(reconciliation.drifts), {id});
  page.gauge("pensieve_estimate_raised_bytes", "bytes",
             "Added to the last estimate because earlier runs took more.", {"model"});
  page.sample(number(reconciliation.raised), {id});
  page.gauge("pensieve_estimate_lowered_bytes", "bytes",
             "Taken from the last estimate because earlier full runs never took it.", {"model"});
  page.sample(number(reconciliation.lowered), {id});
  page.gauge("pensieve_worker_running_requests", "requests", "Requests that hold a sequence.",
             {"model"});
  of_worker(status.heartbeat.running);
  page.gauge("pensieve_worker_waiting_requests", "requests",
             "Requests that wait for a sequence in the worker.", {"model"});
  of_worker(status.heartbeat.waiting);
  add_trend(page, id, status);
  page.gauge("pensieve_worker_uptime_seconds", "seconds", "Since the worker was ready.", {"model"});
  of_worker(std::chrono::duration<double>(status.uptime).count());
  add_cells(page, id, status);
  page.gauge("pensieve_worker_protection_held", "flag",
             "1 where the protection holds for the worker, 0 where it does not.",
             {"model", "protection"});
  for (const Protection& one : status.protections) page.sample(one.holds ? 1 : 0, {id, one.name});
  page.counter("pensieve_worker_ends_total", "workers", "Workers that ended, by how.",
               {"model", "end"});
  for (auto end = worker::WorkerEnd::kClean; end <= worker::WorkerEnd::kProtocolError;
       end = static_cast<worker::WorkerEnd>(static_cast<std::uint8_t>(end) + 1)) {
    page.sample(counted(status.ends, end), {id, std::string(worker::name(end))});
  }
}

void add_prefixes(MetricPage& page, std::string_view model, const model::Pool::Status& status) {
  const std::string id(model);
  const worker::PrefixStats& prefixes = status.heartbeat.prefixes;
  const auto sample = [&](double value) {
    if (status.state == model::State::kReady) page.sample(value, {id});
  };
  page.gauge("pensieve_prefix_stored_bytes", "bytes",
             "Files of conversations that rest, of all models.", {"model"});
  sample(number(prefixes.stored_bytes));
  page.gauge("pensieve_prefix_disk_failing", "flag",
             "1 while nothing can be stored: the disk is full, slow, read-only or gone.",
             {"model"});
  sample(prefixes.disk_failing ? 1 : 0);
  page.counter("pensieve_prefix_hits_total", "requests", "Requests that got a prefix back.",
               {"model"});
  sample(number(prefixes.hits));
  page.counter("pensieve_prefix_misses_total", "requests",
               "Requests for which no prefix was kept, and little was in the KV cache.", {"model"});
  sample(number(prefixes.misses));
  page.counter("pensieve_prefix_spilled_total", "states", "States written to disk.", {"model"});
  sample(number(prefixes.spilled));
  page.counter("pensieve_prefix_dropped_total", "states",
               "States that were given up without being on disk.", {"model"});
  sample(number(prefixes.dropped));
  page.counter("pensieve_prefix_corrupt_total", "files", "Files that were damaged, and removed.",
               {"model"});
  sample(number(prefixes.corrupt));
}

void add_batches(MetricPage& page, const std::optional<Batches::Status>& status) {
  page.gauge("pensieve_kept_batches", "batches", "Message batches that are kept, by state.",
             {"state"});
  if (status) {
    page.sample(number(status->in_progress), {"in_progress"});
    page.sample(number(status->canceling), {"canceling"});
    page.sample(number(status->ended), {"ended"});
  }
  page.gauge("pensieve_batch_requests", "requests",
             "Requests of the batches that are kept: those that wait, run, or have a result, by "
             "which.",
             {"state"});
  if (status) {
    const std::uint64_t running = std::min(status->running, status->unfinished);
    page.sample(number(status->unfinished - running), {"waiting"});
    page.sample(number(running), {"running"});
    for (std::size_t i = 0; i < status->results.size(); ++i) {
      page.sample(number(status->results.at(i)),
                  {std::string(api::name(static_cast<api::BatchResult>(i)))});
    }
  }
  page.gauge("pensieve_batch_stored_bytes", "bytes", "Files of the batches that are kept.");
  if (status) page.sample(number(status->stored));
}

void add_connections(MetricPage& page, const std::optional<ConnectionTable::Status>& status) {
  page.gauge("pensieve_open_connections", "connections", "Connections that are open now.");
  if (status) page.sample(static_cast<double>(status->open));
  page.counter("pensieve_evicted_connections_total", "connections",
               "Connections that waited and were closed to make room for new ones.");
  if (status) page.sample(number(status->evicted));
  page.counter("pensieve_refused_connections_total", "connections",
               "New connections that found no room.");
  if (status) page.sample(number(status->refused));
}

void add_traffic(MetricPage& page, const Traffic& traffic, std::uint32_t requests_active) {
  page.gauge("pensieve_active_requests", "requests",
             "Messages requests that are being answered or wait.");
  page.sample(requests_active);
  page.counter("pensieve_responses_total", "responses",
               "HTTP answers by status; a stream counts with the 200 that it begins with.",
               {"status"});
  for (const auto& [status, count] : traffic.responses) {
    page.sample(number(count), {std::to_string(status)});
  }
  page.counter("pensieve_messages_total", "requests",
               "Messages requests that passed admission, by how they ended.", {"end"});
  for (const MessageEnd end : kMessageEnds) {
    page.sample(counted(traffic.messages, end), {std::string(name(end))});
  }
  page.counter("pensieve_refusals_total", "requests",
               "Requests refused for lack of memory, by the level at that moment.", {"level"});
  for (const Level level : kLevels) {
    page.sample(counted(traffic.refusals, level), {std::string(memory::name(level))});
  }
  page.counter("pensieve_input_tokens_total", "tokens",
               "Tokens of prompts that a worker took up, cached ones included.");
  page.sample(number(traffic.input_tokens));
  page.counter("pensieve_cached_tokens_total", "tokens",
               "Tokens of those prompts that were found in a cache.");
  page.sample(number(traffic.cached_tokens));
  page.counter("pensieve_output_tokens_total", "tokens",
               "Tokens of the answers that were completed.");
  page.sample(number(traffic.output_tokens));
}

}  // namespace pensieve::gateway
