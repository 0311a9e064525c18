// The `pensieve-worker` program: one engine behind one socket. Started by `pensieve serve`.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <fmt/core.h>

#include "base/log.h"
#include "engine/scripted_engine.h"
#include "memory/machine_memory.h"
#include "worker/session.h"
#include "worker/worker_end.h"
#include "worker/worker_process.h"

#if defined(PENSIEVE_ENGINE_LLAMA)
#include "engine/llama_engine.h"
#endif

namespace pensieve {
namespace {

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

/// Makes this process the kernel's first choice when memory runs out, and lets it die with its
/// gateway and without a core dump of gigabytes. Each is best effort; the gateway reports what
/// held.
void confine() {
#if defined(__linux__)
  if (std::FILE* file = std::fopen("/proc/self/oom_score_adj", "w")) {
    std::fputs("1000", file);
    std::fclose(file);
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  std::signal(SIGPIPE, SIG_IGN);
}

struct Arguments {
  std::string engine;
  memory::Floors floors;
  log::Severity log_severity = log::Severity::kInfo;
  std::string own_memory_group;  // Empty where there is none.
};

std::optional<Bytes> bytes_from(const std::string& text) {
  char* end = nullptr;
  const unsigned long long count = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0') return std::nullopt;
  return Bytes(count);
}

/// `--engine NAME --floors-bytes CAUTION WARNING CRITICAL EMERGENCY [--debug]
///  [--own-memory-group NAME]`
std::optional<Arguments> parse(const std::vector<std::string>& args) {
  Arguments parsed;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--engine" && i + 1 < args.size()) {
      parsed.engine = args[++i];
    } else if (args[i] == "--floors-bytes" && i + 4 < args.size()) {
      Bytes* const floors[] = {&parsed.floors.caution, &parsed.floors.warning,
                               &parsed.floors.critical, &parsed.floors.emergency};
      for (Bytes* floor : floors) {
        const std::optional<Bytes> value = bytes_from(args[++i]);
        if (!value) return std::nullopt;
        *floor = *value;
      }
    } else if (args[i] == "--own-memory-group" && i + 1 < args.size()) {
      parsed.own_memory_group = args[++i];
    } else if (args[i] == "--debug") {
      parsed.log_severity = log::Severity::kDebug;
    } else {
      return std::nullopt;
    }
  }
  if (!parsed.floors.ordered()) return std::nullopt;
  return parsed;
}

int run(const std::vector<std::string>& args) {
  if (args.size() == 1 && args[0] == "--version") {
    print_version();
    return 0;
  }
  const std::optional<Arguments> arguments = parse(args);
  if (!arguments) {
    std::fputs("pensieve-worker is started by `pensieve serve`; alone it knows --version only.\n",
               stderr);
    return worker::kExitBadUsage;
  }
  confine();
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
