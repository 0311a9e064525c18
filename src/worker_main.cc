// The `pensieve-worker` program: one engine behind one socket. Started by `pensieve serve`.
#include <sys/types.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "base/heap.h"
#include "base/log.h"
#include "engine/scripted_engine.h"
#include "memory/machine_memory.h"
#include "sandbox/model_files.h"
#include "sandbox/sandbox.h"
#include "worker/prefix_folder.h"
#include "worker/session.h"
#include "worker/worker_end.h"
#include "worker/worker_process.h"

#if defined(PENSIEVE_ENGINE_LLAMA)
#include "engine/llama_engine.h"
#endif

namespace pensieve {
namespace {

// Choice: above what a step of the largest vocabularies takes, below a parked conversation.
constexpr Bytes kLargeBlock = 2_MiB;

struct EngineEntry {
  std::string_view name;
  std::string description;
  engine::EngineFactory make;
};

std::vector<EngineEntry> engines() {
  std::vector<EngineEntry> entries;
#if defined(PENSIEVE_ENGINE_LLAMA)
  entries.push_back({"llama", "llama.cpp", engine::make_llama_engine});
#endif
  entries.push_back(
      {"scripted", "speaks a script; for tests",
       [](const engine::ProgressTick& tick) { return engine::make_scripted_engine(tick); }});
  return entries;
}

void print_version() {
  fmt::print("pensieve-worker {}\n", PENSIEVE_VERSION);
  for (const EngineEntry& entry : engines()) {
    fmt::print("engine {} ({})\n", entry.name, entry.description);
  }
}

struct Arguments {
  std::string engine;
  memory::Floors floors;
  log::Severity log_severity = log::Severity::kInfo;
  std::string own_memory_group;       // Empty where there is none.
  std::string model;                  // Empty: no model can be read.
  std::string projector;              // Of the model; empty: there is none.
  std::vector<std::string> writable;  // Folders.
  std::string prefixes;               // Folder for prefixes; empty: none are stored.
  std::optional<pid_t> gateway;
};

std::optional<Bytes> bytes_from(const std::string& text) {
  char* end = nullptr;
  const unsigned long long count = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0') return std::nullopt;
  return Bytes(count);
}

std::optional<memory::Floors> floors_from(const std::string* texts) {
  memory::Floors floors;
  for (Bytes* floor : {&floors.caution, &floors.warning, &floors.critical, &floors.emergency}) {
    const std::optional<Bytes> value = bytes_from(*texts++);
    if (!value) return std::nullopt;
    *floor = *value;
  }
  if (!floors.ordered()) return std::nullopt;
  return floors;
}

/// `--engine NAME --floors-bytes CAUTION WARNING CRITICAL EMERGENCY [--model FILE] [--gateway PID]
///  [--projector FILE] [--writable FOLDER]... [--prefixes FOLDER] [--own-memory-group NAME]
///  [--debug]`
std::optional<Arguments> parse(const std::vector<std::string>& args) {
  Arguments parsed;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::size_t left = args.size() - i - 1;
    if (args[i] == "--debug") {
      parsed.log_severity = log::Severity::kDebug;
    } else if (args[i] == "--floors-bytes" && left >= 4) {
      const std::optional<memory::Floors> floors = floors_from(&args[i + 1]);
      if (!floors) return std::nullopt;
      parsed.floors = *floors;
      i += 4;
    } else if (args[i] == "--engine" && left > 0) {
      parsed.engine = args[++i];
    } else if (args[i] == "--model" && left > 0) {
      parsed.model = args[++i];
    } else if (args[i] == "--projector" && left > 0) {
      parsed.projector = args[++i];
    } else if (args[i] == "--prefixes" && left > 0) {
      parsed.prefixes = args[++i];
    } else if (args[i] == "--writable" && left > 0) {
      parsed.writable.push_back(args[++i]);
    } else if (args[i] == "--own-memory-group" && left > 0) {
      parsed.own_memory_group = args[++i];
    } else if (args[i] == "--gateway" && left > 0) {
      const std::optional<Bytes> pid = bytes_from(args[++i]);
      if (!pid || pid->count() > INT32_MAX) return std::nullopt;
      parsed.gateway = static_cast<pid_t>(pid->count());
    } else {
      return std::nullopt;
    }
  }
  return parsed;
}

sandbox::Wanted walls_for(const Arguments& arguments) {
  sandbox::Wanted wanted;
  wanted.writable_folders = arguments.writable;
  wanted.parent = arguments.gateway;
  wanted.last_descriptor = worker::kWorkerSocketFd;
  // It has to be there for a rule about it. Where it cannot be made the store will say so.
  if (!arguments.prefixes.empty() && worker::make_prefix_folder(arguments.prefixes)) {
    wanted.writable_folders.push_back(arguments.prefixes);
  }
  if (arguments.model.empty()) return wanted;
  wanted.readable = sandbox::model_files(arguments.model);
  if (!arguments.projector.empty()) wanted.readable.push_back(arguments.projector);
  // A script may make marker files ("once FILE") beside its model. What a script is asked to do is
  // worse than that, so the wall would protect nobody; and no model of the user is ever a script.
  if (arguments.engine == "scripted") {
    const std::filesystem::path folder = std::filesystem::path(arguments.model).parent_path();
    wanted.writable_folders.push_back(folder.empty() ? "." : folder.string());
  }
  return wanted;
}

/// For `pensieve doctor`: what would hold for a worker on this machine, one line each, the parts
/// separated by tabs: "yes" or "no", the claim, how or why not, what to do.
void print_protections() {
  sandbox::Wanted wanted;
  wanted.parent = ::getppid();
  for (const Protection& one : sandbox::confine_process(wanted)) {
    fmt::print("{}\t{}\t{}\t{}\n", one.holds ? "yes" : "no", one.name, one.detail, one.remedy);
  }
}

int run(const std::vector<std::string>& args) {
  if (args.size() == 1 && args[0] == "--version") {
    print_version();
    return 0;
  }
  if (args.size() == 1 && args[0] == "--protections") {
    print_protections();
    return 0;
  }
  const std::optional<Arguments> arguments = parse(args);
  if (!arguments) {
    std::fputs("pensieve-worker is started by `pensieve serve`; alone it knows --version only.\n",
               stderr);
    return worker::kExitBadUsage;
  }
  return_large_blocks(kLargeBlock);
  std::signal(SIGPIPE, SIG_IGN);
  // Before the log and the engine have threads: those that exist already would stay unconfined.
  Protections protections = sandbox::confine_process(walls_for(*arguments));
  log::start("worker", arguments->log_severity);
  for (const EngineEntry& entry : engines()) {
    if (entry.name != arguments->engine) continue;
    Result<std::unique_ptr<memory::MemorySource>> source =
        memory::open_machine_memory(arguments->own_memory_group);
    if (!source) {
      log::error("cannot watch this machine's memory: {}", source.error().message);
      return worker::kExitBadUsage;
    }
    worker::SessionOptions options;
    options.engine_name = arguments->engine;
    options.version = PENSIEVE_VERSION;
    options.floors = arguments->floors;
    options.protections = std::move(protections);
    options.prefix_directory = arguments->prefixes;
    return worker::serve_session(worker::kWorkerSocketFd, entry.make, **source, steady_clock(),
                                 options);
  }
  log::error("this build has no engine \"{}\"", arguments->engine);
  return worker::kExitBadUsage;
}

}  // namespace
}  // namespace pensieve

int main(int argc, char** argv) {
  const int code = pensieve::run({argv + 1, argv + argc});
  pensieve::log::stop();
  return code;
}
