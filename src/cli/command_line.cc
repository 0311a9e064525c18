// Reads the command line and the environment, loads the settings and calls the subcommand.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <istream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/commands.h"
#include "config/keys.h"

extern char** environ;

namespace pensieve::cli {
namespace {

namespace fs = std::filesystem;

// A prompt from standard input; the server's own limit on bodies is 32 MB by default.
constexpr std::size_t kPromptBytesMax = 32 << 20;
/// `pensieve stop` waits at least this long, and longer where the server may drain longer.
constexpr std::uint32_t kStopSecondsLeast = 15;

std::map<std::string, std::string> process_environment() {
  std::map<std::string, std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) out.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return out;
}

/// Where this program lies; the worker is looked for beside it.
std::string program_directory(const char* called_as) {
  std::error_code error;
#ifdef __APPLE__
  char buffer[4096];
  std::uint32_t size = sizeof buffer;
  const fs::path path = _NSGetExecutablePath(buffer, &size) == 0 ? fs::path(buffer) : fs::path();
#else
  const fs::path path = fs::read_symlink("/proc/self/exe", error);
#endif
  const fs::path program = error || path.empty() ? fs::absolute(called_as, error) : path;
  return program.parent_path().string();
}

std::string exit_code_table() {
  std::string text = "Exit status:\n";
  for (const ExitCodeRow& row : kExitCodes) {
    text += fmt::format("  {:>3}  {}\n", status(row.code), row.meaning);
  }
  return text +
         "\nEvery setting also has a variable and a key in a file: pensieve config "
         "--template";
}

/// The whole command line as CLI11 sees it.
struct CommandLine {
  CLI::App app{
      "Pensieve: a local language model behind the Anthropic Messages API that never "
      "takes the machine down."};
  std::map<std::string, std::string> flags;  // By name; empty where not given.
  RunOptions run;
  std::string prompt;
  std::string planned_model;
  double temperature = 0;
  CLI::Option* temperature_option = nullptr;
  bool as_json = false;
  bool stored_too = false;
  bool template_only = false;
  bool key_only = false;

  CommandLine() {
    app.name("pensieve");
    app.footer(exit_code_table());
    app.require_subcommand(1);
    app.set_version_flag("--version", fmt::format("pensieve {}", program_version()));
    for (const config::Key& key : config::keys()) {
      if (!key.flag.empty()) add_flag(key);
    }
    app.add_option("--config", flags["--config"], "Settings file (TOML)")->type_name("FILE");
    // They are options of the program, which may stand on both sides of the subcommand.
    add("serve", "Serve the model until Ctrl+C or `pensieve stop`")->footer([this] {
      return settings_help();
    });
    add_run();
    with_json(add("health", "Show the server's memory level and whether it accepts requests"));
    add_plan();
    with_json(add("ps", "Show the loaded models and what they hold"));
    add("stop", "End the server after its running requests");
    add("clear-cache", "Free what the server's engines keep for later, and say how much")
        ->add_flag("--stored", stored_too, "And remove what is kept on disk");
    CLI::App* config = with_json(add("config", "Show every setting and where it comes from"));
    config->add_flag("--template", template_only, "Print a documented settings file instead");
    config->add_flag("--key", key_only, "Print only the key that commands send, for scripts");
    add("doctor", "Examine this machine and prove the memory guard");
    add("version", "Show versions of program, compiler and engines");
  }

  std::vector<config::Sources::Flag> given_flags() const {
    std::vector<config::Sources::Flag> given;
    for (const auto& [name, text] : flags) {
      if (app.count(name) > 0) given.push_back({name, text});
    }
    return given;
  }

 private:
  void add_flag(const config::Key& key) {
    std::string help = fmt::format("{} Default: {}", key.help, key.default_text());
    const std::string name(key.flag);
    app.add_option(name, flags[name], std::move(help))->type_name("VALUE");
  }

  /// The flags of the settings as the program's own help shows them.
  std::string settings_help() const {
    const std::vector<const CLI::Option*> settings = app.get_options(
        [this](const CLI::Option* option) { return flags.contains(option->get_name()); });
    return CLI::Formatter().make_group("Settings", false, settings);
  }

  /// Settings may stand before or after the subcommand.
  CLI::App* add(const char* name, const char* help) {
    CLI::App* command = app.add_subcommand(name, help);
    command->fallthrough();
    return command;
  }

  CLI::App* with_json(CLI::App* command) {
    command->add_flag("--json", as_json, "Print JSON");
    return command;
  }

  void add_plan() {
    CLI::App* command = with_json(
        add("plan", "Show what a model would take, whether that fits, and which window would"));
    command->add_option("MODEL", planned_model,
                        "As for --model; default: the model of the settings");
  }

  void add_run() {
    CLI::App* command = add("run", "Ask the server one question; streams the answer");
    command->add_option("prompt", prompt, "The question; `-` or none: read from standard input");
    command->add_option("--system", run.system, "System prompt");
    command->add_option("--max-tokens", run.max_tokens, "Longest answer in tokens")
        ->capture_default_str()
        ->check(CLI::Range(1, 1 << 24));
    temperature_option =
        command->add_option("--temperature", temperature, "0 (always the likeliest) to 1")
            ->check(CLI::Range(0.0, 2.0));
  }
};

/// Fills in the prompt; a message where there is none.
std::string read_prompt(CommandLine& line) {
  line.run.prompt = line.prompt;
  if (line.prompt == "-" || line.prompt.empty()) {
    if (line.prompt.empty() && isatty(STDIN_FILENO) == 1) {
      return "no prompt: pensieve run \"...\", or give it on standard input";
    }
    line.run.prompt.clear();
    std::istreambuf_iterator<char> at(std::cin);
    const std::istreambuf_iterator<char> end;
    for (; at != end && line.run.prompt.size() <= kPromptBytesMax; ++at) line.run.prompt += *at;
  }
  if (line.run.prompt.size() > kPromptBytesMax) return "the prompt is larger than 32 MB";
  return line.run.prompt.empty() ? "the prompt is empty" : "";
}

ExitCode run_command(CommandLine& line, const config::LoadedSettings& loaded,
                     const Console& console) {
  const std::string problem = read_prompt(line);
  if (!problem.empty()) return report(console, ExitCode::kUsage, problem);
  if (line.temperature_option->count() > 0) line.run.temperature = line.temperature;
  if (!loaded.is_default("model")) line.run.model = loaded.settings.model;
  return run_prompt(endpoint_of(loaded.settings), line.run, steady_clock(), console);
}

int dispatch(CommandLine& line, const config::LoadedSettings& loaded, const std::string& path,
             const Hooks& hooks, const Console& console) {
  const config::Settings& settings = loaded.settings;
  const std::string command = line.app.get_subcommands().front()->get_name();
  if (command == "serve") return hooks.serve(loaded);
  if (command == "config" && line.key_only) {
    const std::string key = endpoint_of(settings).api_key;
    console.out(key.empty() ? key : key + "\n");
    return status(ExitCode::kOk);
  }
  if (command == "config") return status(show_settings(loaded, line.as_json, console));
  if (command == "doctor") return status(examine(settings, path, hooks, console));
  if (command == "version") return status(show_version(settings, console));
  if (command == "plan") {
    config::Settings planned = settings;
    if (!line.planned_model.empty()) planned.model = line.planned_model;
    const Endpoint server = endpoint_of(settings);
    return status(show_plan(planned, server, hooks, line.as_json, console));
  }
  if (settings.port == 0) {
    return status(report(console, ExitCode::kUsage,
                         "--port: 0 means any free port to a server; name the one it printed"));
  }
  const Endpoint endpoint = endpoint_of(settings);
  if (command == "run") return status(run_command(line, loaded, console));
  if (command == "health") return status(show_health(endpoint, line.as_json, console));
  if (command == "ps") return status(show_models(endpoint, line.as_json, console));
  if (command == "clear-cache") return status(clear_cache(endpoint, line.stored_too, console));
  PENSIEVE_CHECK(command == "stop");
  const std::uint32_t limit = std::max(kStopSecondsLeast, settings.server.drain_seconds + 10);
  return status(stop_server(endpoint, std::chrono::seconds(limit), console));
}

}  // namespace

int run(int argc, char** argv, const Hooks& hooks) {
  PENSIEVE_CHECK(hooks.serve && hooks.machine && hooks.prove_guard && hooks.plan);
  config::Sources sources;
  sources.environment = process_environment();
  const Console console = process_console(sources.environment);
  CommandLine line;
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Prints the help, the version or what is wrong with the command line.
    const bool asked_for = error.get_exit_code() == 0;
    line.app.exit(error);
    return status(asked_for ? ExitCode::kOk : ExitCode::kUsage);
  }
  if (line.template_only) {
    console.out(config::documentation());
    return status(ExitCode::kOk);
  }
  std::error_code ignored;
  sources.working_directory = fs::current_path(ignored).string();
  sources.program_directory = program_directory(argv[0]);
  sources.flags = line.given_flags();
  const auto loaded = config::load(sources);
  if (!loaded) return status(report(console, ExitCode::kUsage, loaded.error().message));
  for (const std::string& warning : loaded->warnings) {
    console.err(fmt::format("pensieve: warning: {}\n", warning));
  }
  return dispatch(line, *loaded, sources.environment["PATH"], hooks, console);
}

}  // namespace pensieve::cli
