#include "gateway/pressure_control.h"

#include <string>
#include <utility>

#include <fmt/core.h>

#include "api/error.h"
#include "base/log.h"
#include "memory/report.h"

namespace pensieve::gateway {
namespace {

using memory::Deed;
using memory::Engines;

/// As memory/admission.cc has it for Emergency: engines have to load again.
constexpr unsigned kRetryAfterSeconds = 15;

Engines engines_of(const model::Pool::Status& status) {
  switch (status.state) {
    case model::State::kUnloaded:
      return Engines::kNone;
    case model::State::kLoading:
      return Engines::kLoading;
    case model::State::kUnloading:
      return Engines::kUnloading;
    case model::State::kReady:
      break;
  }
  return status.calls_running > 0 ? Engines::kBusy : Engines::kIdle;
}

std::string numbers(const memory::Situation& situation) {
  const std::string available = situation.available
                                    ? memory::gb_text(*situation.available) + "GB available"
                                    : std::string("available memory unknown");
  return fmt::format("level {}, {}", memory::name(situation.level), available);
}

}  // namespace

PressureControl::PressureControl(memory::Governor& governor, memory::Monitor& monitor,
                                 model::Pool& pool, Service& service, const Clock& clock,
                                 std::function<void()> stop_server)
    : governor_(governor),
      monitor_(monitor),
      pool_(pool),
      service_(service),
      clock_(clock),
      stop_server_(std::move(stop_server)) {}

void PressureControl::tick() {
  const memory::Situation situation = look();
  const memory::Rung before = governor_.rung();
  const memory::Orders orders = governor_.step(situation, clock_.now());
  const memory::Rung after = orders.rung();
  if (after > before) {
    log::warning("{}", memory::describe_move(before, after, situation));
  } else if (after < before) {
    log::info("{}", memory::describe_move(before, after, situation));
  }
  obey(orders, situation);
}

memory::Situation PressureControl::look() {
  const memory::Monitor::Status memory = monitor_.status();
  const model::Pool::Status model = pool_.status();
  memory::Situation situation;
  situation.level = memory.level;
  situation.recovering = memory.recovering;
  situation.available = memory.available;
  // What a worker that is loading has taken so far is not known; it is not more than its promise.
  situation.held =
      model.state == model::State::kLoading ? model.reserved : model.heartbeat.anonymous;
  situation.parked = model.heartbeat.parked_bytes;
  situation.spare_cells = model.spare_cells;
  situation.engines = engines_of(model);
  situation.idle_for = model.idle_for;
  situation.requests_running = service_.requests_running();
  situation.refused_for_memory = model.refusals != refusals_seen_;
  refusals_seen_ = model.refusals;
  return situation;
}

void PressureControl::obey(const memory::Orders& orders, const memory::Situation& situation) {
  pool_.follow(orders);
  if (orders.drop_engines()) {
    // Told first, so that clients get the numbers and not the news of a killed worker.
    while (service_.requests_running() > 0) end_newest(situation);
    if (pool_.drop(numbers(situation))) governor_.record(Deed::kDroppedEngine);
  } else if (orders.unload_idle()) {
    if (situation.engines == Engines::kLoading) {
      if (pool_.stop_load(numbers(situation))) governor_.record(Deed::kStoppedLoad);
    } else if (pool_.unload(numbers(situation))) {
      governor_.record(Deed::kUnloadedModel);
    }
  }
  if (orders.end_newest()) end_newest(situation);
  if (orders.shut_down() && stop_server_) std::exchange(stop_server_, nullptr)();
}

void PressureControl::end_newest(const memory::Situation& situation) {
  const bool ended = service_.end_newest(api::overloaded(
      fmt::format("ended to free memory: {}", numbers(situation)), kRetryAfterSeconds));
  PENSIEVE_CHECK(ended || service_.requests_running() == 0);
  if (ended) governor_.record(Deed::kEndedRequest);
}

}  // namespace pensieve::gateway
