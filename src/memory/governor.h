// What we do when memory runs short: one ladder, from "caches stop growing" up to "engines are
// dropped". Pure: time and facts come in, orders come out; model/pool and gateway/ obey them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/level.h"

namespace pensieve::memory {

/// The ladder. On a rung all lower ones are in force as well. Ordered: `a > b` reads "a costs the
/// user more than b".
///
///   rung            entered at                           frees
///   kNone           Safe                                 -
///   kHoldCaches     Caution                              nothing: what caches would have taken
///   kSmallSteps     Warning                              nothing: the growth of a step
///   kSpillCaches    Warning that lasts, or a refusal     parked prefixes, unused KV cells
///   kUnloadIdle     Warning that lasts longer            all of a model that serves nobody
///   kRefuse         Critical, or no reading              nothing new is taken; models that serve
///                                                        nobody go at once
///   kEndRunning     Emergency                            the cells of the newest request, in turn
///   kDropEngines    Emergency with nothing left to end,  everything but the front door
///                   or one that lasts
enum class Rung : std::uint8_t {
  kNone,
  kHoldCaches,
  kSmallSteps,
  kSpillCaches,
  kUnloadIdle,
  kRefuse,
  kEndRunning,
  kDropEngines,
};
inline constexpr std::size_t kRungCount = 8;

std::string_view name(Rung rung);         // "none", "hold_caches", "small_steps", ...
std::string_view description(Rung rung);  // For log lines: "caches stop growing", ...

/// Whose memory it is that is missing.
enum class Whose : std::uint8_t {
  kNone,     // No rung is in force.
  kOurs,     // Giving back what we hold would lift us over the floor.
  kOthers,   // It would not, or we hold nothing.
  kUnknown,  // The available memory cannot be read: nobody can tell.
};
std::string_view name(Whose whose);  // "none", "ours", "others", "unknown"

/// What the models' processes are doing, the busiest of them where there are several.
enum class Engines : std::uint8_t { kNone, kUnloading, kLoading, kIdle, kBusy };

/// All that the ladder looks at, read at one moment.
struct Situation {
  Level level = kLevelWhenUnknown;
  /// The last reading was better than `level`, which only holds on: nothing more has to be ended.
  bool recovering = false;
  std::optional<Bytes> available;  // Empty: not known.

  Bytes held;         // Anonymous memory of all workers; for one that is loading, its promise.
  Bytes parked;       // Of that: prefixes that are kept in RAM and could go to disk.
  Bytes spare_cells;  // Of that: KV cells above what any sequence uses.

  Engines engines = Engines::kNone;
  Duration idle_for{};                 // Where kIdle.
  std::uint32_t requests_running = 0;  // Not ended yet, wherever they are.
  /// A load or more cells were refused for lack of memory since the last step.
  bool refused_for_memory = false;
};

/// What has to be done now.
///
/// The anti-wedge rule is in how orders are made: there is no way to make orders that refuse and
/// leave untouched what could be freed. Whoever is turned away because of our own caches or idle
/// models would be turned away for ever.
class Orders {
 public:
  bool caches_may_grow() const { return rung_ < Rung::kHoldCaches; }
  bool small_steps() const { return rung_ >= Rung::kSmallSteps; }
  /// No prefix is to stay parked in RAM, and unused cells are to be given back.
  bool spill_caches() const { return rung_ >= Rung::kSpillCaches; }
  /// A model that serves nobody is to be ended, also one that is only being loaded.
  bool unload_idle() const { return unload_idle_; }
  bool refuse() const { return rung_ >= Rung::kRefuse; }
  /// The newest request that runs is to be ended.
  bool end_newest() const { return end_newest_; }
  /// Every worker is to be killed.
  bool drop_engines() const { return drop_engines_; }
  /// The server is to stop; only where the user has chosen that.
  bool shut_down() const { return shut_down_; }

  Rung rung() const { return rung_; }

 private:
  friend class Governor;
  explicit Orders(Rung rung) : rung_(rung) {}

  Rung rung_;
  bool unload_idle_ = false;
  bool end_newest_ = false;
  bool drop_engines_ = false;
  bool shut_down_ = false;
};

/// True where `orders` turn requests away although something of ours could be freed and is not:
/// what must never be. For tests and simulations; Governor::step() checks it in every build.
/// Two cases where a model that serves nobody may stay: there is no reading (to unload would bring
/// none back), or the last reading would admit again and only the monitor's hold refuses.
bool is_wedged(const Situation& situation, const Orders& orders, const Floors& floors);

/// For the log, one line per move: "memory pressure: refuse (new requests are refused); level
/// Critical, 0.75GB available, 1.20GB held by our workers".
std::string describe_move(Rung from, Rung to, const Situation& situation);

/// What was done against pressure, for status(). Counted by those who do it.
enum class Deed : std::uint8_t { kEndedRequest, kUnloadedModel, kStoppedLoad, kDroppedEngine };
inline constexpr std::size_t kDeedCount = 4;
std::string_view name(Deed deed);  // "ended_request", "unloaded_model", ...

/// Climbs and descends the ladder.
///
/// Quick to climb: the first rung of a level is taken in the step that sees the level. Slow to
/// descend: one rung per `descend_hold`, so that caches do not grow into the memory that they have
/// just given back. The rungs that turn requests away are the exception: they follow the level
/// downwards at once, because the monitor has held it long enough already.
/// Without a reading the ladder stands at kRefuse, or higher where it stood higher, and ends
/// nothing: engines are not dropped for a lost reading.
///
/// Thread-safety: one thread at a time. Errors: none.
class Governor {
 public:
  struct Options {
    Floors floors{};
    /// At Warning a rung gets this long to help before the next one is climbed. Choice: two
    /// samples; a worker obeys within a step.
    Duration rung_patience = std::chrono::milliseconds(500);
    /// Time on a rung that is not asked for any more. Choice: as long as the monitor's own hold.
    Duration descend_hold = std::chrono::seconds(1);
    /// How long a model must have served nobody to be unloaded at Warning; at Critical it goes at
    /// once. Choice: longer than the pause between two turns of an agent, so that a model in use
    /// stays, and short against the minutes that a desktop stays short of memory.
    Duration idle_at_warning = std::chrono::seconds(10);
    /// Between two ended requests. Choice: a worker gives cells back within a few steps, and the
    /// monitor sees it at its next sample; faster would end more requests than needed.
    Duration end_every = std::chrono::milliseconds(250);
    /// An Emergency that lasts so long drops the engines, whatever still runs. Choice: twelve
    /// requests can be ended before; a program that takes 160 MB/s needs 3 s for what is left
    /// below the default floor, and then the kernel would choose.
    Duration emergency_max = std::chrono::seconds(3);
    /// Beyond the ladder: an Emergency that lasts twice emergency_max stops the server.
    bool shut_down_on_emergency = false;
  };

  struct Status {
    Rung rung = Rung::kNone;
    Whose whose = Whose::kNone;
    Duration on_rung_for{};
    /// What was done since the ladder was last left, in words, with numbers; at most one entry per
    /// rung and deed.
    std::vector<std::string> done;
    std::array<std::uint64_t, kRungCount> entered{};  // Per rung, since start.
    std::array<std::uint64_t, kRungCount> left{};
    std::array<std::uint64_t, kDeedCount> deeds{};  // Per Deed, since start.
  };

  /// REQUIRES: options.floors.ordered(); no duration below zero.
  explicit Governor(const Options& options);

  /// One look at the situation.
  /// REQUIRES: `now` is not before the `now` of the previous call.
  Orders step(const Situation& situation, TimePoint now);

  /// Something that was ordered has been done.
  void record(Deed deed);

  Rung rung() const { return rung_; }
  Status status(TimePoint now) const;

 private:
  Rung wanted(const Situation& situation, TimePoint now) const;
  Rung wanted_at_warning(TimePoint now) const;
  Rung wanted_at_emergency(const Situation& situation, TimePoint now) const;
  void climb_or_descend(Rung wanted, TimePoint now);
  void move_to(Rung rung, TimePoint now);
  Whose whose(const Situation& situation) const;
  Orders orders(const Situation& situation, TimePoint now);

  const Options options_;
  Rung rung_ = Rung::kNone;
  Whose whose_ = Whose::kNone;
  TimePoint on_rung_since_{};
  std::optional<TimePoint> not_wanted_since_;  // The rung is only held from then on.
  std::optional<TimePoint> emergency_since_;
  std::optional<TimePoint> ended_at_;  // The last order to end a request.
  Rung highest_ = Rung::kNone;         // Since the ladder was last left.
  std::array<std::uint64_t, kDeedCount> episode_deeds_{};
  std::array<std::uint64_t, kDeedCount> deeds_{};
  std::array<std::uint64_t, kRungCount> entered_{};
  std::array<std::uint64_t, kRungCount> left_{};
};

}  // namespace pensieve::memory
