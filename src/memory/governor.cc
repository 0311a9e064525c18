#include "memory/governor.h"

#include <algorithm>

#include <fmt/core.h>

#include "base/error.h"
#include "memory/report.h"

namespace pensieve::memory {
namespace {

constexpr std::size_t index(Rung rung) {
  return static_cast<std::size_t>(rung);
}
constexpr Rung rung_at(std::size_t index) {
  return static_cast<Rung>(index);
}

bool serves_nobody(Engines engines) {
  return engines == Engines::kIdle || engines == Engines::kLoading;
}

/// The last reading would admit; what refuses is the monitor's hold, which ends by itself.
bool only_the_hold_refuses(const Situation& situation, const Floors& floors) {
  return situation.recovering && situation.available && *situation.available >= floors.critical;
}

/// The floor that the available memory has to reach again for the pressure to be over.
Bytes floor_to_regain(Level level, const Floors& floors) {
  if (level >= Level::kCritical) return floors.critical;
  return level == Level::kWarning ? floors.warning : floors.caution;
}

std::string figures(const Situation& situation) {
  const std::string available = situation.available ? gb_text(*situation.available) + "GB available"
                                                    : std::string("available memory unknown");
  return fmt::format("level {}, {}, {}GB held by our workers", name(situation.level), available,
                     gb_text(situation.held));
}

std::string counted(std::uint64_t count, std::string_view deed, std::string_view noun) {
  return fmt::format("{} {} {}{}", deed, count, noun, count == 1 ? "" : "s");
}

std::string in_words(Deed deed, std::uint64_t count) {
  switch (deed) {
    case Deed::kEndedRequest:
      return counted(count, "ended", "request");
    case Deed::kUnloadedModel:
      return counted(count, "unloaded an idle model", "time");
    case Deed::kStoppedLoad:
      return counted(count, "stopped", "load");
    case Deed::kDroppedEngine:
      return counted(count, "dropped", "engine");
  }
  PENSIEVE_CHECK(false);
}

}  // namespace

std::string_view name(Rung rung) {
  constexpr std::array<std::string_view, kRungCount> kNames{
      "none",        "hold_caches", "small_steps", "spill_caches",
      "unload_idle", "refuse",      "end_running", "drop_engines"};
  return kNames.at(index(rung));
}

std::string_view description(Rung rung) {
  constexpr std::array<std::string_view, kRungCount> kDescriptions{
      "no measures",
      "caches stop growing",
      "prompts are processed in smaller steps",
      "prefixes in RAM go to disk and unused KV cells are given back",
      "models that serve nobody are unloaded",
      "new requests are refused",
      "running requests are ended, newest first",
      "engines are dropped"};
  return kDescriptions.at(index(rung));
}

std::string_view name(Deed deed) {
  constexpr std::array<std::string_view, kDeedCount> kNames{"ended_request", "unloaded_model",
                                                            "stopped_load", "dropped_engine"};
  return kNames.at(static_cast<std::size_t>(deed));
}

std::string_view name(Whose whose) {
  switch (whose) {
    case Whose::kNone:
      return "none";
    case Whose::kOurs:
      return "ours";
    case Whose::kOthers:
      return "others";
    case Whose::kUnknown:
      return "unknown";
  }
  PENSIEVE_CHECK(false);
}

bool is_wedged(const Situation& situation, const Orders& orders, const Floors& floors) {
  const bool refuses = orders.refuse() || situation.refused_for_memory;
  const bool could_spill = situation.parked > Bytes() || situation.spare_cells > Bytes();
  if (refuses && could_spill && !orders.spill_caches()) return true;
  const bool idle_may_stay =
      !situation.available || only_the_hold_refuses(situation, floors) || !orders.refuse();
  if (serves_nobody(situation.engines) && !idle_may_stay) {
    return !orders.unload_idle() && !orders.drop_engines();
  }
  return false;
}

std::string describe_move(Rung from, Rung to, const Situation& situation) {
  return fmt::format("memory pressure{}: {} ({}); {}", to < from ? " eases" : "", name(to),
                     description(to), figures(situation));
}

Governor::Governor(const Options& options) : options_(options) {
  PENSIEVE_CHECK(options.floors.ordered());
  PENSIEVE_CHECK(options.rung_patience >= Duration::zero());
  PENSIEVE_CHECK(options.descend_hold >= Duration::zero());
  PENSIEVE_CHECK(options.idle_at_warning >= Duration::zero());
  PENSIEVE_CHECK(options.end_every >= Duration::zero());
  PENSIEVE_CHECK(options.emergency_max >= Duration::zero());
}

Orders Governor::step(const Situation& situation, TimePoint now) {
  const bool is_emergency = situation.available && situation.level == Level::kEmergency;
  if (!is_emergency) {
    emergency_since_.reset();
  } else if (!emergency_since_) {
    emergency_since_ = now;
  }
  climb_or_descend(wanted(situation, now), now);
  whose_ = whose(situation);
  const Orders orders = this->orders(situation, now);
  PENSIEVE_CHECK(!is_wedged(situation, orders, options_.floors));
  return orders;
}

Rung Governor::wanted(const Situation& situation, TimePoint now) const {
  // Not knowing neither improves what we knew nor ends anything.
  if (!situation.available) return std::max(rung_, Rung::kRefuse);
  const Rung least = situation.refused_for_memory ? Rung::kSpillCaches : Rung::kNone;
  switch (situation.level) {
    case Level::kSafe:
      return least;
    case Level::kCaution:
      return std::max(least, Rung::kHoldCaches);
    case Level::kWarning:
      return std::max(least, wanted_at_warning(now));
    case Level::kCritical:
      return Rung::kRefuse;
    case Level::kEmergency:
      return wanted_at_emergency(situation, now);
  }
  PENSIEVE_CHECK(false);
}

/// One rung after the other, each with its time to help.
Rung Governor::wanted_at_warning(TimePoint now) const {
  if (rung_ < Rung::kSmallSteps) return Rung::kSmallSteps;
  if (rung_ >= Rung::kUnloadIdle) return Rung::kUnloadIdle;
  const bool had_its_time = now - on_rung_since_ >= options_.rung_patience;
  return had_its_time ? rung_at(index(rung_) + 1) : rung_;
}

Rung Governor::wanted_at_emergency(const Situation& situation, TimePoint now) const {
  // While the level is only held, the memory is back: nothing more is ended.
  if (situation.recovering) return std::max(rung_, Rung::kEndRunning);
  const bool lasts = emergency_since_ && now - *emergency_since_ >= options_.emergency_max;
  if (situation.requests_running == 0 || lasts) return Rung::kDropEngines;
  return std::max(rung_, Rung::kEndRunning);
}

void Governor::climb_or_descend(Rung wanted, TimePoint now) {
  if (wanted >= rung_) {
    not_wanted_since_.reset();
    if (wanted > rung_) move_to(wanted, now);
    return;
  }
  if (rung_ >= Rung::kRefuse) {
    // The monitor has held the level; a second hold would refuse requests that fit.
    move_to(std::max(wanted, Rung::kUnloadIdle), now);
    not_wanted_since_ = now;
    return;
  }
  if (!not_wanted_since_) not_wanted_since_ = now;
  if (now - *not_wanted_since_ < options_.descend_hold) return;
  move_to(rung_at(index(rung_) - 1), now);
  not_wanted_since_ = now;
}

void Governor::move_to(Rung rung, TimePoint now) {
  if (rung > rung_) {
    for (std::size_t i = index(rung_) + 1; i <= index(rung); ++i) ++entered_.at(i);
  } else {
    for (std::size_t i = index(rung) + 1; i <= index(rung_); ++i) ++left_.at(i);
  }
  if (rung_ == Rung::kNone) {
    highest_ = Rung::kNone;
    episode_deeds_ = {};
  }
  rung_ = rung;
  highest_ = std::max(highest_, rung);
  on_rung_since_ = now;
}

Whose Governor::whose(const Situation& situation) const {
  if (rung_ == Rung::kNone) return Whose::kNone;
  if (!situation.available) return Whose::kUnknown;
  // On the way back the question is whose it was.
  const bool eases = situation.recovering || not_wanted_since_.has_value();
  if (eases && whose_ != Whose::kNone && whose_ != Whose::kUnknown) return whose_;
  if (situation.held == Bytes()) return Whose::kOthers;
  const std::optional<Bytes> without_us = checked_add(*situation.available, situation.held);
  const Bytes floor = floor_to_regain(situation.level, options_.floors);
  return !without_us || *without_us >= floor ? Whose::kOurs : Whose::kOthers;
}

Orders Governor::orders(const Situation& situation, TimePoint now) {
  Orders orders(rung_);
  if (!situation.available) return orders;
  const bool long_enough = situation.engines == Engines::kIdle && rung_ >= Rung::kUnloadIdle &&
                           situation.level >= Level::kWarning &&
                           situation.idle_for >= options_.idle_at_warning;
  const bool at_once = serves_nobody(situation.engines) && rung_ >= Rung::kRefuse &&
                       !only_the_hold_refuses(situation, options_.floors);
  orders.unload_idle_ = long_enough || at_once;
  if (!emergency_since_ || situation.recovering) return orders;

  const bool its_turn = !ended_at_ || now - *ended_at_ >= options_.end_every;
  orders.end_newest_ = rung_ >= Rung::kEndRunning && situation.requests_running > 0 && its_turn;
  if (orders.end_newest_) ended_at_ = now;
  orders.drop_engines_ = rung_ == Rung::kDropEngines && situation.engines != Engines::kNone;
  orders.shut_down_ =
      options_.shut_down_on_emergency && now - *emergency_since_ >= 2 * options_.emergency_max;
  return orders;
}

void Governor::record(Deed deed) {
  ++deeds_.at(static_cast<std::size_t>(deed));
  ++episode_deeds_.at(static_cast<std::size_t>(deed));
}

Governor::Status Governor::status(TimePoint now) const {
  Status status;
  status.rung = rung_;
  status.whose = whose_;
  status.on_rung_for = now - on_rung_since_;
  status.entered = entered_;
  status.left = left_;
  status.deeds = deeds_;
  if (rung_ == Rung::kNone) return status;
  for (std::size_t i = index(Rung::kHoldCaches); i <= index(highest_); ++i) {
    status.done.emplace_back(description(rung_at(i)));
  }
  for (std::size_t i = 0; i < kDeedCount; ++i) {
    if (episode_deeds_.at(i) == 0) continue;
    status.done.push_back(in_words(static_cast<Deed>(i), episode_deeds_.at(i)));
  }
  return status;
}

}  // namespace pensieve::memory
