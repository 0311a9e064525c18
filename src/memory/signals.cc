#include "memory/signals.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <fmt/ranges.h>

namespace pensieve::memory {
namespace {

/// What one signal asks for.
struct Vote {
  unsigned levels = 0;
  Level worst = Level::kEmergency;  // It does not take the level beyond this one.
  std::string why;
};

Vote vote_of_own_stalls(const Stalls& stalls, bool limit_reached) {
  const auto words = [&](std::string_view which, double percent) {
    return fmt::format("{} waited for memory {:.0f} % of the time ({})", which, percent,
                       stalls.where);
  };
  if (stalls.full_percent >= kFullPercent) {
    return {stalls.full_percent >= kFullPercentSevere ? 2U : 1U, Level::kEmergency,
            words("all tasks", stalls.full_percent)};
  }
  if (stalls.some_percent >= (limit_reached ? kSomePercentAtLimit : kSomePercent)) {
    return {1, Level::kEmergency, words("tasks", stalls.some_percent)};
  }
  return {};
}

bool swaps(const SwapIn& swap_in) {
  return swap_in.pages_per_second && *swap_in.pages_per_second >= kSwapInPagesPerSecond;
}

std::string words_of(const SwapIn& swap_in) {
  return fmt::format("{:.0f} pages/s come back from swap ({})", *swap_in.pages_per_second,
                     swap_in.where);
}

/// What an unreadable signal asks for: one level at least, for not knowing is not calm.
Vote with_doubt(Vote vote, const std::string& unreadable, Level worst) {
  if (unreadable.empty()) return vote;
  if (vote.levels > 0) {
    vote.why += ", when last read";
    return vote;
  }
  return {1, worst, "a signal is unreadable: " + unreadable};
}

Vote vote_of_stalls(const Signals& signals, bool machine_limits) {
  const std::optional<Stalls>& stalls = signals.stalls.value;
  if (stalls && stalls->scope == Scope::kMachine) {
    if (!machine_limits) return {};
    const bool high = stalls->full_percent >= kFullPercent;
    Vote vote;
    if (high) {
      vote = {1, Level::kWarning,
              fmt::format("all tasks waited for memory {:.0f} % of the time ({})",
                          stalls->full_percent, stalls->where)};
      const std::optional<SwapIn>& swap_in = signals.swap_in.value;
      if (swap_in && swaps(*swap_in)) {
        vote.worst = Level::kCritical;
        vote.why += ", and " + words_of(*swap_in);
      }
    }
    return with_doubt(std::move(vote), signals.stalls.unreadable, Level::kWarning);
  }
  const bool limit_reached = signals.events.value && signals.events.value->limit_reached;
  return with_doubt(stalls ? vote_of_own_stalls(*stalls, limit_reached) : Vote(),
                    signals.stalls.unreadable, Level::kEmergency);
}

Vote vote_of_swap_in(const Signal<SwapIn>& swap_in, bool machine_limits) {
  const bool is_machines = swap_in.value && swap_in.value->scope == Scope::kMachine;
  if (is_machines && !machine_limits) return {};
  const Level worst = is_machines ? Level::kWarning : Level::kEmergency;
  Vote vote;
  if (swap_in.value && swaps(*swap_in.value)) vote = {1, worst, words_of(*swap_in.value)};
  return with_doubt(std::move(vote), swap_in.unreadable, worst);
}

Vote vote_of_events(const Signal<GroupEvents>& events) {
  Vote vote;
  if (events.value && events.value->out_of_memory) {
    vote = {1, Level::kEmergency, "the kernel ran out of memory for " + events.value->where};
  } else if (events.value && events.value->protection_lost) {
    vote = {1, Level::kEmergency, "protected memory was taken from " + events.value->where};
  }
  return with_doubt(std::move(vote), events.unreadable, Level::kEmergency);
}

Vote vote_of_verdict(const Signal<KernelVerdict>& verdict) {
  Vote vote;
  if (verdict.value == KernelVerdict::kCritical) {
    vote = {1, Level::kCritical, "macOS says that memory pressure is critical"};
  } else if (verdict.value == KernelVerdict::kWarning) {
    vote = {1, Level::kWarning, "macOS warns of memory pressure"};
  }
  return with_doubt(std::move(vote), verdict.unreadable, Level::kWarning);
}

Level worsened(Level measured, const Vote& vote) {
  const Level within_reach = measured < Level::kCritical ? Level::kCritical : Level::kEmergency;
  const unsigned levels = std::min(vote.levels, kWorsenedLevelsMax);
  const auto wanted = static_cast<unsigned>(measured) + levels;
  const auto reached = std::min(wanted, static_cast<unsigned>(std::min(within_reach, vote.worst)));
  return std::max(measured, static_cast<Level>(reached));
}

template <class T>
std::string text(const Signal<T>& signal, std::string_view what, const std::string& value) {
  if (!signal.unreadable.empty()) return fmt::format("{} unreadable", what);
  return signal.value ? value : fmt::format("no {} here", what);
}

std::string happened(const GroupEvents& events) {
  std::vector<std::string_view> words;
  if (events.limit_reached) words.emplace_back("limit reached");
  if (events.protection_lost) words.emplace_back("protection lost");
  if (events.out_of_memory) words.emplace_back("out of memory");
  return words.empty() ? "no events" : fmt::format("{}", fmt::join(words, ", "));
}

/// Keeps the last good value where a read failed, and says so.
template <class T, class Raw, class Observe>
void follow(Signal<T>& signal, const Result<std::optional<Raw>>& raw, const Observe& observe) {
  if (!raw) {
    signal.unreadable = raw.error().message;
    return;
  }
  signal.unreadable.clear();
  if (*raw) {
    observe(**raw);
  } else {
    signal.value.reset();
  }
}

double percent_of(const RateWindow& microseconds, double average_percent) {
  const std::optional<double> recent = microseconds.per_second();
  return recent ? std::min(average_percent, *recent / 10'000) : average_percent;
}

bool is_recent(const std::optional<TimePoint>& then, TimePoint now) {
  return then && now - *then <= kEventLasts;
}

}  // namespace

bool Signals::any_unreadable() const {
  return !stalls.unreadable.empty() || !swap_in.unreadable.empty() || !events.unreadable.empty() ||
         !verdict.unreadable.empty();
}

std::string unreadable_signals(const Signals& signals) {
  std::vector<std::string_view> reasons;
  for (const std::string* reason : {&signals.stalls.unreadable, &signals.swap_in.unreadable,
                                    &signals.events.unreadable, &signals.verdict.unreadable}) {
    if (!reason->empty()) reasons.emplace_back(*reason);
  }
  return fmt::format("{}", fmt::join(reasons, "; "));
}

std::string describe(const Signals& signals) {
  const std::optional<Stalls>& stalls = signals.stalls.value;
  const std::optional<SwapIn>& swap_in = signals.swap_in.value;
  const std::optional<GroupEvents>& events = signals.events.value;
  std::string words =
      text(signals.stalls, "PSI",
           stalls ? fmt::format("PSI some {:.1f} % full {:.1f} % ({})", stalls->some_percent,
                                stalls->full_percent, stalls->where)
                  : "");
  std::string rate = "not measured yet";
  if (swap_in && swap_in->pages_per_second) {
    rate = fmt::format("{:.0f} pages/s", *swap_in->pages_per_second);
  }
  words += ", " + text(signals.swap_in, "swap-in",
                       swap_in ? fmt::format("swap-in {} ({})", rate, swap_in->where) : "");
  words += ", " + text(signals.events, "group events",
                       events ? fmt::format("{} ({})", happened(*events), events->where) : "");
  if (signals.verdict.value || !signals.verdict.unreadable.empty()) {
    constexpr std::string_view kNames[] = {"normal", "warning", "critical"};
    const auto index = static_cast<std::size_t>(signals.verdict.value ? *signals.verdict.value
                                                                      : KernelVerdict::kNormal);
    words += ", " + text(signals.verdict, "macOS pressure",
                         fmt::format("macOS pressure {}", kNames[index]));
  }
  return words;
}

Worsened worsen(Level measured, const Signals& signals, bool machine_limits) {
  Worsened worst{measured, ""};
  if (measured == Level::kSafe) return worst;
  for (const Vote& vote :
       {vote_of_stalls(signals, machine_limits), vote_of_swap_in(signals.swap_in, machine_limits),
        vote_of_events(signals.events), vote_of_verdict(signals.verdict)}) {
    const Level level = worsened(measured, vote);
    if (level > worst.level) worst = {level, vote.why};
  }
  return worst;
}

void SignalTracker::observe(const RawSignals& raw, TimePoint at) {
  follow(signals_.stalls, raw.pressure, [&](const auto& now) { observe_stalls(now, at); });
  follow(signals_.swap_in, raw.swap_in, [&](const auto& now) { observe_swap_in(now, at); });
  follow(signals_.events, raw.events, [&](const auto& now) { observe_events(now, at); });
  follow(signals_.verdict, raw.verdict, [&](KernelVerdict now) { signals_.verdict.value = now; });
}

Signals SignalTracker::outdated() const {
  Signals old = signals_;
  const auto mark = [](auto& signal) {
    if (signal.value) signal.unreadable = "not looked at for too long";
  };
  mark(old.stalls);
  mark(old.swap_in);
  mark(old.events);
  mark(old.verdict);
  return old;
}

void SignalTracker::observe_stalls(const RawPressure& raw, TimePoint at) {
  if (signals_.stalls.value && signals_.stalls.value->where != raw.where) {
    some_.reset();
    full_.reset();
  }
  some_.add(static_cast<std::uint64_t>(raw.pressure.some.total.count()), at);
  full_.add(static_cast<std::uint64_t>(raw.pressure.full.total.count()), at);
  signals_.stalls.value =
      Stalls{percent_of(some_, raw.pressure.some.avg10_percent),
             percent_of(full_, raw.pressure.full.avg10_percent), raw.scope, raw.where};
}

void SignalTracker::observe_swap_in(const RawSwapIn& raw, TimePoint at) {
  if (signals_.swap_in.value && signals_.swap_in.value->where != raw.where) swap_.reset();
  swap_.add(raw.pages, at);
  signals_.swap_in.value = SwapIn{swap_.per_second(), raw.scope, raw.where};
}

void SignalTracker::observe_events(const RawEvents& raw, TimePoint at) {
  // The first counts of a group may be of long ago: only what is added counts.
  if (last_events_ && last_events_->where == raw.where) {
    const RawEvents& last = *last_events_;
    if (raw.high > last.high || raw.max > last.max) limit_reached_at_ = at;
    if (raw.low > last.low) protection_lost_at_ = at;
    if (raw.oom > last.oom || raw.oom_kill > last.oom_kill) out_of_memory_at_ = at;
  }
  if (raw.waits_out_of_memory) out_of_memory_at_ = at;
  last_events_ = raw;
  signals_.events.value =
      GroupEvents{is_recent(limit_reached_at_, at), is_recent(protection_lost_at_, at),
                  is_recent(out_of_memory_at_, at), raw.where};
}

}  // namespace pensieve::memory
