// `./dev sim [SEED] [--steps N] [--seeds N]`: the simulated gateway from the command line. See
// simulation.h for what is simulated; a seed that fails is printed with the command that replays
// it.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/core.h>

#include "base/error.h"
#include "base/log.h"
#include "sim/simulation.h"

namespace pensieve::sim {
namespace {

struct Arguments {
  std::optional<std::uint64_t> seed;  // One; else those from 1 on.
  std::uint64_t seeds = 200;
  std::uint64_t steps = 10'000;
  std::uint64_t jobs = 0;  // Processes; 0: one a core.
  Flaw flaw = Flaw::kNone;
  bool logs = false;
};

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Arguments> parse(const std::vector<std::string>& args) {
  Arguments parsed;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--log") {
      parsed.logs = true;
    } else if (args[i] == "--flaw" && i + 1 < args.size()) {
      const std::optional<Flaw> flaw = flaw_named(args[++i]);
      if (!flaw) return std::nullopt;
      parsed.flaw = *flaw;
    } else if (args[i].starts_with("--") && i + 1 < args.size()) {
      const std::string& key = args[i];
      const std::optional<std::uint64_t> value = number(args[++i]);
      if (!value || *value == 0) return std::nullopt;
      if (key == "--steps") {
        parsed.steps = *value;
      } else if (key == "--seeds") {
        parsed.seeds = *value;
      } else if (key == "--jobs") {
        parsed.jobs = *value;
      } else {
        return std::nullopt;
      }
    } else if (const std::optional<std::uint64_t> seed = number(args[i])) {
      parsed.seed = seed;
    } else {
      return std::nullopt;
    }
  }
  return parsed;
}

std::string replay(const Plan& plan) {
  return fmt::format("./dev sim {} --steps {}{}", plan.seed, plan.steps,
                     plan.flaw == Flaw::kNone ? "" : fmt::format(" --flaw {}", name(plan.flaw)));
}

Plan current;  // For the report of a fault.

/// A PENSIEVE_CHECK that fails is a finding like any other; the process ends after it.
extern "C" void report_fault(int) {
  fmt::print("FAIL seed {}: a fault of ours (above), at {}  replay: {}\n", current.seed,
             whereabouts(), replay(current));
  std::fflush(stdout);
  std::signal(SIGABRT, SIG_DFL);
  std::abort();
}

bool run_seed(const Plan& plan, Tally& tally, bool tells) {
  current = plan;
  const Outcome outcome = simulate(plan);
  tally.add(outcome.tally);
  if (outcome.violation) {
    fmt::print("FAIL seed {}, step {}: {}\n{}  replay: {}\n", plan.seed, outcome.violation->step,
               outcome.violation->invariant, outcome.violation->last_events, replay(plan));
  } else if (tells) {
    fmt::print("ok   seed {}: {} steps, events {:016x}\n", plan.seed, plan.steps, outcome.hash);
  }
  std::fflush(stdout);
  return !outcome.violation;
}

std::string sum_of(const Tally& tally) {
  std::string text = fmt::format(
      "{} steps, {:.0f} s of simulated time, {} refused at the door, {} workers, {} "
      "killed by the kernel; requests:",
      tally.steps, tally.seconds, tally.refused_at_door, tally.workers, tally.kernel_kills);
  constexpr std::string_view kEndings[] = {"open",         "whole",       "cut short",
                                           "error status", "error event", "hung up"};
  for (const auto& [ending, count] : tally.endings) {
    text += fmt::format(" {} {},", kEndings[static_cast<std::size_t>(ending)], count);
  }
  text += " workers' ends:";
  for (const auto& [end, count] : tally.worker_ends) {
    text += fmt::format(" {} {},", worker::name(end), count);
  }
  text.pop_back();
  return text;
}

/// Every `jobs`th seed; `passed` counts those that held, over all processes.
void run_share(const Arguments& arguments, std::uint64_t first, std::uint64_t jobs,
               std::atomic<std::uint64_t>& passed) {
  Tally tally;
  for (std::uint64_t seed = first; seed <= arguments.seeds; seed += jobs) {
    if (run_seed({seed, arguments.steps, arguments.flaw}, tally, false)) ++passed;
  }
  fmt::print("share {} of {}: {}\n", first, jobs, sum_of(tally));
  std::fflush(stdout);
}

/// Shares the seeds out to processes, so that a fault in one is only one failure.
int run_all(const Arguments& arguments) {
  const std::uint64_t cores = std::max(1U, std::thread::hardware_concurrency());
  const std::uint64_t jobs = std::min(arguments.jobs > 0 ? arguments.jobs : cores, arguments.seeds);
  void* const shared = ::mmap(nullptr, sizeof(std::atomic<std::uint64_t>), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  PENSIEVE_CHECK(shared != MAP_FAILED);
  auto* const passed = new (shared) std::atomic<std::uint64_t>(0);
  std::vector<pid_t> children;
  for (std::uint64_t first = 1; first <= jobs; ++first) {
    const pid_t child = ::fork();
    if (child == 0) {
      run_share(arguments, first, jobs, *passed);
      ::_exit(0);
    }
    if (child > 0) children.push_back(child);
  }
  for (const pid_t child : children) ::waitpid(child, nullptr, 0);
  // A seed that was not reached, because a fault ended its process, has not passed.
  const std::uint64_t failed = arguments.seeds - passed->load();
  fmt::print("{} seeds passed, {} failed ({} steps each)\n", passed->load(), failed,
             arguments.steps);
  return failed == 0 ? 0 : 1;
}

int run(const std::vector<std::string>& args) {
  const std::optional<Arguments> arguments = parse(args);
  if (!arguments) {
    std::fputs("usage: ./dev sim [SEED] [--steps N] [--seeds N] [--jobs N] [--flaw NAME] [--log]\n",
               stderr);
    return 2;
  }
  if (!arguments->logs) log::stop();  // Millions of lines that nobody reads.
  std::signal(SIGABRT, report_fault);
  if (!arguments->seed) return run_all(*arguments);
  Tally tally;
  const bool held = run_seed({*arguments->seed, arguments->steps, arguments->flaw}, tally, true);
  fmt::print("{}\n", sum_of(tally));
  return held ? 0 : 1;
}

}  // namespace
}  // namespace pensieve::sim

int main(int argc, char** argv) {
  return pensieve::sim::run({argv + 1, argv + argc});
}
