// The `pensieve` program: wiring only. What each part does stands in its folder.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "cli/cli.h"
#include "config/api_key.h"
#include "config/load.h"
#include "gateway/guard_proof.h"
#include "gateway/self_protection.h"
#include "gateway/server.h"
#include "memory/admission.h"
#include "memory/cgroup_group.h"
#include "memory/cgroup_place.h"
#include "memory/machine_memory.h"
#include "memory/machine_signals.h"
#include "memory/report.h"
#include "model/catalogue.h"
#include "model/estimate_book.h"
#include "model/planner.h"
#include "worker/worker_groups.h"
#include "worker/worker_link.h"

namespace pensieve {
namespace {

Bytes bytes_of_gb(double gb) {
  return Bytes(static_cast<std::uint64_t>(std::llround(gb * static_cast<double>(1ULL << 30))));
}

memory::Floors floors_of(const config::Settings& settings) {
  return {.caution = bytes_of_gb(settings.memory.caution_gb),
          .warning = bytes_of_gb(settings.memory.warning_gb),
          .critical = bytes_of_gb(settings.memory.critical_gb),
          .emergency = bytes_of_gb(settings.memory.emergency_gb)};
}

std::vector<gateway::ApiKey> keys_of(const config::Settings& settings) {
  std::vector<gateway::ApiKey> keys;
  if (!settings.server.api_key.empty()) {
    keys.push_back({.name = "", .secret = settings.server.api_key});
  }
  const auto named = config::parse_api_keys(settings.server.keys);
  PENSIEVE_CHECK(named.has_value());  // load() has checked them.
  for (const config::ApiKey& key : *named) {
    keys.push_back({key.name, key.secret, key.requests_max, key.tokens_per_day_max});
  }
  return keys;
}

/// In the folder of our state. Servers with other ports count for themselves; two that wrote into
/// one file would forget each other's.
std::string key_use_path(std::uint16_t port) {
  const std::filesystem::path estimates(model::default_estimates_path());
  if (estimates.empty()) return {};
  return estimates.parent_path() / fmt::format("key-use-{}.json", port);
}

gateway::ServerOptions server_options(const config::Settings& settings, model::ModelFile model) {
  const memory::Floors floors = floors_of(settings);
  gateway::ServerOptions options;
  options.host = settings.host;
  options.port = settings.port;
  options.drain_max = std::chrono::seconds(settings.server.drain_seconds);
  options.connection.body_bytes_max = std::size_t{settings.server.body_max_mb} << 20;
  options.service.access = {.keys = keys_of(settings),
                            .allowed_origins = settings.server.allowed_origins,
                            .loopback_only = config::is_loopback(settings.host)};
  options.service.model_aliases = settings.models.aliases;
  options.service.model_aliases.push_back(settings.model);
  options.batches_directory = settings.batches.directory;
  options.key_use_path = key_use_path(settings.port);
  options.service.waiting_max = settings.server.queue_max;
  options.service.buffers = {
      .bytes_max = Bytes(std::uint64_t{settings.server.buffers_max_mb} << 20), .floors = floors};
  options.service.started_at = wall_time();
  options.monitor.floors = floors;
  options.monitor.recovery_hold = std::chrono::milliseconds(settings.memory.recovery_hold_ms);
  options.signals = memory::open_machine_signals();
  options.governor.floors = floors;
  options.governor.shut_down_on_emergency =
      settings.memory.on_emergency == config::EmergencyChoice::kShutDown;
  options.pool.model = std::move(model);
  options.pool.worker_program = settings.worker.program;
  options.pool.context_tokens = settings.context;
  options.pool.sequences_max = settings.parallel;
  options.pool.threads =
      settings.threads > 0 ? settings.threads : std::max(1U, std::thread::hardware_concurrency());
  options.pool.estimates_path = model::default_estimates_path();
  options.pool.floors = floors;
  options.pool.hang_after = std::chrono::seconds(settings.server.hang_seconds);
  options.pool.debug_log = settings.log_level == log::Severity::kDebug;
  options.pool.parked_bytes_max = bytes_of_gb(settings.cache.memory_max_gb);
  options.pool.stored_bytes_max = bytes_of_gb(settings.cache.disk_max_gb);
  if (settings.cache.disk_max_gb > 0) options.pool.prefix_directory = settings.cache.directory;
  return options;
}

/// "4 of 4", and a warning in the log for each that is missing.
std::string counted(std::string_view whose, const Protections& protections) {
  std::size_t held = 0;
  for (const Protection& one : protections) {
    held += one.holds ? 1 : 0;
    if (one.holds) {
      log::debug("{}: {} ({})", whose, one.name, one.detail);
    } else {
      log::warning("{} not protected: \"{}\" does not hold: {}{}{}", whose, one.name, one.detail,
                   one.remedy.empty() ? "" : "; ", one.remedy);
    }
  }
  return fmt::format("{} of {}", held, protections.size());
}

/// What serve() has found out before the server runs.
struct Prepared {
  std::size_t proofs = 0;
  Duration proof_time{};
  Protections gateway;
};

void print_banner(const config::Settings& settings, const gateway::ServerOptions& options,
                  const gateway::Started& started, const Prepared& prepared) {
  const std::string shown = settings.host.find(':') != std::string::npos
                                ? fmt::format("[{}]", settings.host)
                                : settings.host;
  fmt::print("Pensieve {}\n", PENSIEVE_VERSION);
  fmt::print("  listening on http://{}:{}\n", shown, started.port);
  if (started.not_loaded) {
    fmt::print("  model        {} is not loaded; the next request tries again\n",
               options.pool.model.id);
    fmt::print("               {}\n", started.not_loaded->message);
  } else {
    fmt::print("  model        {} ({}), window {} tokens, {} in parallel, {} threads\n",
               options.pool.model.id, started.model.info->description,
               started.model.info->context_tokens, options.pool.sequences_max,
               options.pool.threads);
  }
  const memory::Monitor::Status& memory = started.memory;
  fmt::print("  memory       {}: {}GB of {}GB available ({}); {}GB reserved for the model\n",
             memory::memory_status_header(memory), memory::available_memory_header(memory),
             memory.total ? memory::gb_text(*memory.total) : "unknown", memory.limited_by,
             memory::gb_text(started.model.reserved));
  if (memory.total &&
      *memory.total < Bytes(options.monitor.floors.caution.count() + (1ULL << 30))) {
    fmt::print(
        "               this machine can hardly be Safe with a floor of {}GB; set "
        "[memory] caution_gb and the others lower\n",
        memory::gb_text(options.monitor.floors.caution));
  }
  fmt::print("  guard        proven at start: {} simulated readings, {} ms\n", prepared.proofs,
             std::chrono::duration_cast<std::chrono::milliseconds>(prepared.proof_time).count());
  fmt::print("  protection   gateway {}", counted("the gateway is", prepared.gateway));
  if (!started.not_loaded) {
    fmt::print(", worker {}", counted("the worker is", started.model.protections));
  }
  fmt::print("; pensieve doctor lists them\n");
  fmt::print("  Claude Code  PENSIEVE_PORT={} scripts/claude-local\n", started.port);
  fmt::print("  Ctrl+C stops\n");
  std::fflush(stdout);
}

cli::ExitCode exit_code_of(const gateway::StartFailure& failure) {
  using Kind = gateway::StartFailure::Kind;
  switch (failure.kind) {
    case Kind::kPortInUse:
      return cli::ExitCode::kPortInUse;
    case Kind::kAddress:
      return cli::ExitCode::kUsage;
    case Kind::kModel:
      return cli::ExitCode::kModelUnavailable;
    case Kind::kMemory:
      return cli::ExitCode::kDoesNotFit;
  }
  return cli::ExitCode::kFailure;
}

std::vector<gateway::GuardProof> quiet_proofs(const memory::Floors& floors) {
  log::start("proof", log::Severity::kError);  // The refusals are meant; their lines would alarm.
  std::vector<gateway::GuardProof> proofs = gateway::prove_guard(floors);
  log::stop();
  return proofs;
}

/// One descriptor per connection, and some for workers, readings and the log.
rlim_t descriptors_needed(const gateway::ServerOptions& options) {
  return options.connections_max + 64;
}

/// Workers get memory groups of their own where this machine makes some. To be called before the
/// memory is watched: with cgroup v2 the gateway moves into another group.
worker::LinkFactory worker_starter() {
  Result<std::unique_ptr<worker::WorkerGroups>> groups = worker::WorkerGroups::open();
  if (!groups) return worker::WorkerLink::starting_in(nullptr, groups.error().message);
  return worker::WorkerLink::starting_in(std::move(*groups), "");
}

int serve(const config::LoadedSettings& loaded) {
  return_large_blocks(1_MiB);  // Bodies of requests would stay in the locked heap.
  const config::Settings& settings = loaded.settings;
  std::signal(SIGPIPE, SIG_IGN);
  ::umask(S_IRWXG | S_IRWXO);
  const model::Catalogue catalogue(settings.models.directory);
  Result<model::ModelFile> model =
      catalogue.resolve(settings.model, config::name(settings.engine), settings.models.projector);
  if (!model) {
    fmt::print(stderr, "pensieve: {}\n", model.error().message);
    return cli::status(cli::ExitCode::kModelUnavailable);
  }
  Prepared prepared;
  const TimePoint proof_from = steady_clock().now();
  const std::vector<gateway::GuardProof> proofs = quiet_proofs(floors_of(settings));
  if (const std::string failures = gateway::failures_of(proofs); !failures.empty()) {
    fmt::print(stderr,
               "pensieve: the memory guard failed its test, so nothing is served: {}\n"
               "pensieve: it needs a loopback network; if there is one, report this\n",
               failures);
    return cli::status(cli::ExitCode::kGuardBroken);
  }
  prepared.proofs = proofs.size();
  prepared.proof_time = steady_clock().now() - proof_from;
  const worker::LinkFactory start_worker = worker_starter();
  Result<std::unique_ptr<memory::MemorySource>> source = memory::open_machine_memory();
  if (!source) {
    fmt::print(stderr, "pensieve: cannot watch this machine's memory: {}\n",
               source.error().message);
    return cli::status(cli::ExitCode::kFailure);
  }
  log::start("pensieve", settings.log_level);
  gateway::ServerOptions options = server_options(settings, std::move(*model));
  options.pool.start_worker = start_worker;
  prepared.gateway = gateway::protect_gateway(descriptors_needed(options));
  const auto served = gateway::run_server(
      **source, steady_clock(), options,
      [&](const gateway::Started& started) { print_banner(settings, options, started, prepared); });
  log::stop();
  if (served) return cli::status(cli::ExitCode::kOk);
  fmt::print(stderr, "pensieve: {}\n", served.error().message);
  return cli::status(exit_code_of(served.error()));
}

cli::Section memory_section(const config::Settings& settings) {
  cli::Section section{"memory", {}};
  Result<std::unique_ptr<memory::MemorySource>> source = memory::open_machine_memory();
  const Result<memory::Reading> reading =
      source ? (*source)->read() : std::unexpected(source.error());
  if (!reading) {
    section.findings.push_back({"available", cli::Mark::kFail, reading.error().message,
                                "the server refuses every request until this can be read"});
    return section;
  }
  const memory::Floors floors = floors_of(settings);
  const memory::Level level = memory::level_for(reading->available, floors);
  const bool refuses = level >= memory::Level::kCritical;
  section.findings.push_back(
      {"available", refuses ? cli::Mark::kWarning : cli::Mark::kOk,
       fmt::format("{}GB of {}GB ({}), level {}", memory::gb_text(reading->available),
                   memory::gb_text(reading->total), reading->limited_by, memory::name(level)),
       refuses ? "close other programs, or lower the floors in [memory]" : ""});
  const bool reachable = reading->total > floors.caution;
  section.findings.push_back(
      {"floors", reachable ? cli::Mark::kOk : cli::Mark::kWarning,
       fmt::format("caution {}GB, warning {}GB, critical {}GB, emergency {}GB",
                   memory::gb_text(floors.caution), memory::gb_text(floors.warning),
                   memory::gb_text(floors.critical), memory::gb_text(floors.emergency)),
       reachable ? ""
                 : "this machine can never be Safe; set [memory] caution_gb and others lower"});
  return section;
}

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

cli::Section cgroup_section() {
  cli::Section section{"cgroup", {}};
  const auto place =
      memory::locate_memory_cgroup(text_of("/proc/self/cgroup"), text_of("/proc/self/mountinfo"));
  if (!place) {
    section.findings.push_back({"memory group", cli::Mark::kFail, place.error().message,
                                "make the group's hierarchy visible under /sys/fs/cgroup"});
    return section;
  }
  if (!*place) {
    section.findings.push_back(
        {"memory group", cli::Mark::kOk, "none: only the machine itself is a limit", ""});
    return section;
  }
  const bool is_v1 = (*place)->version == memory::CgroupVersion::kV1;
  for (const memory::CgroupFolder& folder : (*place)->groups) {
    memory::CgroupGroup group(folder, (*place)->version);
    const auto headroom = group.read();
    const std::string what = fmt::format("{} {}", is_v1 ? "v1" : "v2", folder.name);
    if (!headroom) {
      section.findings.push_back({what, cli::Mark::kFail, headroom.error().message,
                                  "the server refuses every request until this can be read"});
    } else if (*headroom) {
      section.findings.push_back(
          {what, cli::Mark::kOk,
           fmt::format("{}GB of {}GB available", memory::gb_text((*headroom)->available),
                       memory::gb_text((*headroom)->limit)),
           ""});
    } else {
      section.findings.push_back({what, cli::Mark::kOk, "no limit", ""});
    }
  }
  return section;
}

cli::Section pressure_section() {
  const auto pressure = memory::open_machine_signals()->read().pressure;
  cli::Finding finding{"memory stalls (PSI)", cli::Mark::kOk, "", ""};
  if (!pressure) {
    finding.mark = cli::Mark::kWarning;
    finding.detail = pressure.error().message;
    finding.remedy = "below Safe, a signal that cannot be read counts as pressure";
  } else if (!*pressure) {
    finding.mark = cli::Mark::kWarning;
    finding.detail = "this kernel tells none";
    finding.remedy = "levels go by available memory alone";
  } else {
    finding.detail = fmt::format("some {:.1f} %, full {:.1f} % over 10 s ({})",
                                 (*pressure)->pressure.some.avg10_percent,
                                 (*pressure)->pressure.full.avg10_percent, (*pressure)->where);
  }
  return {"pressure", {finding}};
}

/// What the gateway could do for itself and its workers here; tried on this process.
cli::Section protection_section() {
  cli::Section section{"gateway protection", {}};
  const Result<std::unique_ptr<worker::WorkerGroups>> groups = worker::WorkerGroups::open();
  if (groups) {
    section.findings.push_back(
        {"a memory group per worker", cli::Mark::kOk, (*groups)->describe(), ""});
  } else {
    section.findings.push_back({"a memory group per worker", cli::Mark::kWarning,
                                groups.error().message,
                                "run as root, or as a systemd service with Delegate=yes"});
  }
  for (const Protection& one : gateway::protect_gateway(descriptors_needed({}))) {
    section.findings.push_back(
        {one.name, one.holds ? cli::Mark::kOk : cli::Mark::kWarning, one.detail, one.remedy});
  }
  return section;
}

std::vector<cli::Section> machine(const config::Settings& settings) {
  return {memory_section(settings), cgroup_section(), pressure_section(), protection_section()};
}

std::vector<cli::Proof> prove_guard(const config::Settings& settings) {
  std::vector<cli::Proof> proofs;
  for (gateway::GuardProof& proof : quiet_proofs(floors_of(settings))) {
    proofs.push_back({std::move(proof.name), proof.passed, std::move(proof.detail)});
  }
  return proofs;
}

cli::MemoryNow memory_of_machine(const config::Settings& settings) {
  cli::MemoryNow now{.source = "this machine", .available = {}, .total = {}};
  now.floor = floors_of(settings).critical.count();
  Result<std::unique_ptr<memory::MemorySource>> source = memory::open_machine_memory();
  const Result<memory::Reading> reading =
      source ? (*source)->read() : std::unexpected(source.error());
  if (!reading) return now;  // Not known, and shown as that.
  now.available = reading->available.count();
  now.total = reading->total.count();
  return now;
}

cli::PlanReport report_of(const model::PlanQuestion& question, const model::PlanAnswer& answer,
                          cli::MemoryNow memory) {
  const engine::MemoryEstimate& estimate = answer.plan.estimate;
  cli::PlanReport report{.model = question.model.id,
                         .engine = question.model.engine,
                         .path = question.model.path,
                         .context_tokens = answer.plan.context_tokens,
                         .context_train_tokens = answer.plan.context_train_tokens,
                         .parallel = question.sequences_max,
                         .weights_mapped_bytes = estimate.weights_mapped.count(),
                         .weights_copied_bytes = estimate.weights_copied.count(),
                         .kv_bytes = estimate.kv.count(),
                         .compute_bytes = estimate.compute.count(),
                         .process_bytes = estimate.process.count(),
                         .image_bytes = estimate.images.count(),
                         .grammar_bytes = estimate.grammars.count(),
                         .raised_bytes = answer.raised.count(),
                         .lowered_bytes = answer.lowered.count(),
                         .largest_now = answer.largest_now,
                         .largest_ever = answer.largest_ever,
                         .last_run = {},
                         .memory = std::move(memory)};
  if (answer.experience) {
    const model::Run& last = answer.experience->last;
    report.last_run = {.runs = answer.experience->runs,
                       .planned_bytes = last.planned.count(),
                       .peak_bytes = last.peak.count(),
                       .resident_peak_bytes = last.resident_peak.count(),
                       .was_full = last.was_full};
  }
  return report;
}

std::expected<cli::PlanReport, cli::PlanFailure> plan(const config::Settings& settings,
                                                      const std::optional<cli::MemoryNow>& server) {
  const model::Catalogue catalogue(settings.models.directory);
  Result<model::ModelFile> file =
      catalogue.resolve(settings.model, config::name(settings.engine), settings.models.projector);
  if (!file) {
    return std::unexpected(
        cli::PlanFailure{cli::ExitCode::kModelUnavailable, file.error().message});
  }
  cli::MemoryNow memory = server ? *server : memory_of_machine(settings);
  model::PlanQuestion question{.model = std::move(*file),
                               .worker_program = settings.worker.program,
                               .context_tokens = settings.context,
                               .sequences_max = settings.parallel,
                               .threads = std::max(1U, std::thread::hardware_concurrency()),
                               .floors = floors_of(settings),
                               .estimates_path = model::default_estimates_path(),
                               .room_now = {},
                               .room_ever = {}};
  // What a server does by itself before it would refuse: the idle model goes.
  if (const auto room = memory.room_after_unload()) question.room_now = Bytes(*room);
  if (const auto room = memory.room_ever()) question.room_ever = Bytes(*room);
  log::start("plan", log::Severity::kError);
  auto answer = model::plan_model(question, steady_clock());
  log::stop();
  if (!answer) {
    return std::unexpected(
        cli::PlanFailure{cli::ExitCode::kModelUnavailable, answer.error().message});
  }
  return report_of(question, *answer, std::move(memory));
}

}  // namespace
}  // namespace pensieve

int main(int argc, char** argv) {
  return pensieve::cli::run(argc, argv,
                            {.serve = pensieve::serve,
                             .machine = pensieve::machine,
                             .prove_guard = pensieve::prove_guard,
                             .plan = pensieve::plan});
}
