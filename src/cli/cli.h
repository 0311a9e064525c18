// The `pensieve` command line. It talks to a running server over HTTP, like any client; what needs
// the server's own parts in this process is handed in by main.cc as hooks.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/exit_code.h"
#include "cli/plan.h"
#include "config/load.h"

namespace pensieve::cli {

enum class Mark : std::uint8_t { kOk, kWarning, kFail };

/// One line of `pensieve doctor`.
struct Finding {
  std::string what;  // "available", "limits", "pressure"
  Mark mark = Mark::kOk;
  std::string detail;  // What was found.
  std::string remedy;  // What to do about it; empty where nothing is to be done.
};

struct Section {
  std::string title;  // "memory", "cgroup"
  std::vector<Finding> findings;
};

/// One sentence about the guard, tried out under simulated pressure.
struct Proof {
  std::string name;
  bool passed = false;
  std::string detail;
};

struct Hooks {
  /// Runs the server until it ends. Returns the exit status.
  std::function<int(const config::LoadedSettings&)> serve;
  /// Memory, cgroup and pressure figures of this machine.
  std::function<std::vector<Section>(const config::Settings&)> machine;
  std::function<std::vector<Proof>(const config::Settings&)> prove_guard;
  /// What settings.model would take, against a server's memory or, without one, this machine's.
  std::function<std::expected<PlanReport, PlanFailure>(const config::Settings&,
                                                       const std::optional<MemoryNow>& server)>
      plan;
};

/// Runs one command. REQUIRES: all hooks are set. Returns the exit status (cli/exit_code.h); every
/// error has been printed by then.
int run(int argc, char** argv, const Hooks& hooks);

}  // namespace pensieve::cli
