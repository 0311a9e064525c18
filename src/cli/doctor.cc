// pensieve doctor: what this machine gives, what is missing, and what to do about it.
#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "cli/commands.h"
#include "cli/server_call.h"
#include "cli/subprocess.h"
#include "cli/table.h"

namespace pensieve::cli {
namespace {

namespace fs = std::filesystem;

constexpr Duration kProgramLimit = std::chrono::seconds(10);
// A folder of models is a few files in a few folders; a wrong one (/) must not be walked for long.
constexpr int kModelDepthMax = 3;
constexpr std::size_t kModelEntriesMax = 5000;

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

Section worker_section(const config::Settings& settings) {
  const std::string& program = settings.worker.program;
  const auto output = run_program({program, "--version"}, kProgramLimit);
  if (!output || output->status != 0) {
    const std::string reason =
        output ? fmt::format("{} --version ended with {}", program, output->status)
               : output.error().message;
    return {"worker",
            {{"program", Mark::kFail, reason,
              "build it with ./dev build, or name it in [worker] program"}}};
  }
  Section section{"worker", {{"program", Mark::kOk, program, ""}}};
  for (std::size_t at = 0; at < output->text.size();) {
    const std::size_t end = std::min(output->text.find('\n', at), output->text.size());
    const std::string line = output->text.substr(at, end - at);
    if (line.starts_with("engine "))
      section.findings.push_back({"engine", Mark::kOk, line.substr(7), ""});
    at = end + 1;
  }
  if (section.findings.size() == 1) {
    section.findings.push_back(
        {"engine", Mark::kFail, "the worker names no engine", "build it anew with ./dev build"});
  }
  return section;
}

/// The parts of a line that the worker program prints, separated by tabs.
std::vector<std::string> parts_of(const std::string& line) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t end = std::min(line.find('\t', at), line.size());
    parts.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

/// What a worker could be kept from here: the worker program tries that on itself.
Section worker_protection_section(const config::Settings& settings) {
  Section section{"worker confinement", {}};
  const auto output = run_program({settings.worker.program, "--protections"}, kProgramLimit);
  if (output && output->status == 0) {
    for (std::size_t at = 0; at < output->text.size();) {
      const std::size_t end = std::min(output->text.find('\n', at), output->text.size());
      const std::vector<std::string> parts = parts_of(output->text.substr(at, end - at));
      at = end + 1;
      if (parts.size() != 4) continue;
      const bool holds = parts[0] == "yes";
      section.findings.push_back(
          {parts[1], holds ? Mark::kOk : Mark::kWarning, parts[2], holds ? "" : parts[3]});
    }
  }
  if (section.findings.empty()) {
    section.findings.push_back({"confinement", Mark::kWarning,
                                "the worker program does not say what holds for it",
                                "install both programs together"});
  }
  return section;
}

/// Model files under `folder`, as "name (size)".
std::vector<std::string> model_files(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  std::size_t entries = 0;
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && at != fs::recursive_directory_iterator() && entries < kModelEntriesMax;
       at.increment(error), ++entries) {
    if (at.depth() >= kModelDepthMax) at.disable_recursion_pending();
    const fs::path& path = at->path();
    std::error_code unreadable;
    if (path.extension() != ".gguf" && path.extension() != ".script") continue;
    const std::uintmax_t size = at->file_size(unreadable);
    found.push_back(fmt::format("{} ({})", path.filename().string(),
                                unreadable ? "unreadable" : size_text(size)));
  }
  std::ranges::sort(found);
  return found;
}

Section model_section(const config::Settings& settings) {
  Section section{"models", {}};
  bool any = false;
  for (const std::string& folder : settings.models.directory) {
    const std::vector<std::string> files = model_files(folder);
    std::string detail = files.empty() ? "no model files" : "";
    for (const std::string& file : files) detail += (detail.empty() ? "" : ", ") + file;
    section.findings.push_back({folder, Mark::kOk, detail, ""});
    any = any || !files.empty();
  }
  std::error_code ignored;
  if (fs::exists(settings.model, ignored)) {
    section.findings.push_back({"chosen", Mark::kOk, settings.model, ""});
  } else if (any) {
    section.findings.push_back({"chosen", Mark::kOk, settings.model + ", looked up at start", ""});
  } else {
    section.findings.push_back({"chosen", Mark::kFail, settings.model + " is nowhere to be found",
                                "get the default model with ./dev setup, or name a .gguf file "
                                "with --model"});
  }
  return section;
}

Finding port_finding(const config::Settings& settings) {
  const std::string what = fmt::format("{}:{}", settings.host, settings.port);
  if (settings.port == 0) return {what, Mark::kOk, "any free port is taken at start", ""};
  const auto health = send(endpoint_of(settings), {.target = "/health"});
  if (health) {
    const auto body = parse_json(health->body);
    if (body && text_member(*body, "service").starts_with("pensieve")) {
      return {what, Mark::kOk,
              fmt::format("a Pensieve answers: memory {}",
                          text_member(member(*body, "memory"), "status")),
              ""};
    }
  }
  const bool taken = health || health.error().kind != HttpError::Kind::kUnreachable;
  const std::string reason =
      taken ? "another program answers there" : why_not_bindable(settings.host, settings.port);
  if (reason.empty()) return {what, Mark::kOk, "free", ""};
  return {what, Mark::kFail, reason, "end that program, or choose a port with --port"};
}

Section claude_section(const std::string& search_path) {
  constexpr const char* kInstall = "npm install -g @anthropic-ai/claude-code@2.1.332";
  const std::string program = find_in_path("claude", search_path);
  if (program.empty()) {
    return {"Claude Code", {{"claude", Mark::kWarning, "not found in PATH", kInstall}}};
  }
  const auto output = run_program({program, "--version"}, kProgramLimit);
  if (!output || output->status != 0) {
    const std::string reason =
        output ? fmt::format("{} --version ended with {}", program, output->status)
               : output.error().message;
    return {"Claude Code", {{"claude", Mark::kWarning, reason, kInstall}}};
  }
  return {"Claude Code",
          {{"claude", Mark::kOk, fmt::format("{} ({})", first_line(output->text), program), ""}}};
}

Section guard_section(const std::vector<Proof>& proofs) {
  Section section{"guard, under simulated pressure", {}};
  for (const Proof& proof : proofs) {
    section.findings.push_back({proof.name, proof.passed ? Mark::kOk : Mark::kFail, proof.detail,
                                proof.passed ? "" : "do not serve with this build; report it"});
  }
  if (proofs.empty()) {
    section.findings.push_back({"proof", Mark::kFail, "nothing was proved", "report it"});
  }
  return section;
}

std::string_view mark_text(Mark mark, bool unicode) {
  switch (mark) {
    case Mark::kOk:
      return unicode ? "✓" : "ok  ";
    case Mark::kWarning:
      return unicode ? "!" : "warn";
    case Mark::kFail:
      return unicode ? "✗" : "FAIL";
  }
  PENSIEVE_CHECK(false);
}

void print(const Section& section, const Console& console) {
  console.out(without_controls(section.title) + "\n");
  std::size_t width = 0;
  for (const Finding& finding : section.findings) width = std::max(width, finding.what.size());
  // Long names (paths, sentences) are followed directly; they would push all others away.
  width = std::min<std::size_t>(width, 28);
  for (const Finding& finding : section.findings) {
    std::string line =
        fmt::format("  {} {:<{}}", mark_text(finding.mark, console.unicode), finding.what, width);
    if (!finding.detail.empty()) line += "  " + finding.detail;
    line.erase(line.find_last_not_of(' ') + 1);
    console.out(without_controls(line) + "\n");
    if (!finding.remedy.empty()) {
      console.out(fmt::format("       -> {}\n", without_controls(finding.remedy)));
    }
  }
}

}  // namespace

ExitCode examine(const config::Settings& settings, const std::string& search_path,
                 const Hooks& hooks, const Console& console) {
  std::size_t warnings = 0;
  std::size_t failures = 0;
  const auto show = [&](const Section& section) {
    print(section, console);
    for (const Finding& finding : section.findings) {
      warnings += finding.mark == Mark::kWarning ? 1 : 0;
      failures += finding.mark == Mark::kFail ? 1 : 0;
    }
  };
  for (const Section& section : hooks.machine(settings)) show(section);
  show(worker_section(settings));
  show(worker_protection_section(settings));
  show(model_section(settings));
  show({"port", {port_finding(settings)}});
  show(claude_section(search_path));
  show(guard_section(hooks.prove_guard(settings)));
  console.out(fmt::format("{} failed, {} warnings\n", failures, warnings));
  return failures == 0 ? ExitCode::kOk : ExitCode::kFailure;
}

}  // namespace pensieve::cli
