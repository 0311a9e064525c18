// The subcommands. Each prints to the console and returns how the program ends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cli/cli.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/http_client.h"
#include "config/load.h"

namespace pensieve::cli {

struct RunOptions {
  std::string prompt;
  std::string model = {};  // Empty: the first one that the server lists.
  std::string system = {};
  std::uint32_t max_tokens = 1024;
  std::optional<double> temperature = {};
};

/// Streams one answer to the terminal; Ctrl+C closes the connection, which frees the sequence.
ExitCode run_prompt(const Endpoint& endpoint, const RunOptions& options, const Clock& clock,
                    const Console& console);

ExitCode show_health(const Endpoint& endpoint, bool as_json, const Console& console);
ExitCode show_models(const Endpoint& endpoint, bool as_json, const Console& console);

/// Asks the server to end and waits until its port is closed, at most `limit`.
ExitCode stop_server(const Endpoint& endpoint, Duration limit, const Console& console);

/// Asks the server at `endpoint`, where there is one, what memory it has and has promised.
ExitCode show_plan(const config::Settings& settings, const Endpoint& endpoint, const Hooks& hooks,
                   bool as_json, const Console& console);
/// Empty where no server answers, or one that does not say.
std::optional<MemoryNow> memory_of_server(const Endpoint& endpoint);

/// `stored_too`: also what is on disk.
ExitCode clear_cache(const Endpoint& endpoint, bool stored_too, const Console& console);

/// Valid TOML, one `key = value  # from origin` per line.
ExitCode show_settings(const config::LoadedSettings& loaded, bool as_json, const Console& console);

ExitCode show_version(const config::Settings& settings, const Console& console);

/// `search_path` is the PATH variable. kFailure where a finding fails.
ExitCode examine(const config::Settings& settings, const std::string& search_path,
                 const Hooks& hooks, const Console& console);

/// "pensieve: MESSAGE" on the error stream.
ExitCode report(const Console& console, ExitCode code, const std::string& message);

std::string_view program_version();  // "0.1.0"

}  // namespace pensieve::cli
