// pensieve config, version.
#include <algorithm>
#include <string>

#include <fmt/core.h>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "cli/commands.h"
#include "cli/subprocess.h"

namespace pensieve::cli {
namespace {

namespace json = boost::json;

constexpr Duration kWorkerVersionLimit = std::chrono::seconds(10);

#ifdef __clang__
constexpr std::string_view kCompiler = "clang++ " __clang_version__;
#else
constexpr std::string_view kCompiler = "g++ " __VERSION__;
#endif

std::string as_toml(const config::LoadedSettings& loaded) {
  std::size_t width = 0;
  std::vector<std::string> lines;
  std::vector<std::string> sections;
  for (const config::Setting& setting : loaded.listing) {
    const std::size_t dot = setting.key.find('.');
    const bool top = dot == std::string::npos;
    sections.push_back(top ? "" : setting.key.substr(0, dot));
    lines.push_back(
        fmt::format("{} = {}", top ? setting.key : setting.key.substr(dot + 1), setting.value));
    // One long list must not push every comment off the screen.
    if (lines.back().size() <= 44) width = std::max(width, lines.back().size());
  }
  std::string text =
      fmt::format("# settings file: {}\n", loaded.file.empty() ? std::string("none") : loaded.file);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0 && sections[i] != sections[i - 1]) text += fmt::format("\n[{}]\n", sections[i]);
    text += fmt::format("{:<{}}  # from {}\n", lines[i], width, loaded.listing[i].origin);
  }
  return text;
}

std::string as_json_text(const config::LoadedSettings& loaded) {
  json::array settings;
  for (const config::Setting& setting : loaded.listing) {
    json::object row;
    row["key"] = setting.key;
    row["value"] = setting.value;
    row["origin"] = setting.origin;
    settings.push_back(std::move(row));
  }
  json::object body;
  body["file"] = loaded.file;
  body["settings"] = std::move(settings);
  return json::serialize(body) + "\n";
}

}  // namespace

ExitCode show_settings(const config::LoadedSettings& loaded, bool as_json, const Console& console) {
  console.out(as_json ? as_json_text(loaded) : as_toml(loaded));
  return ExitCode::kOk;
}

std::string_view program_version() {
  return PENSIEVE_VERSION;
}

ExitCode show_version(const config::Settings& settings, const Console& console) {
  console.out(fmt::format("pensieve {}\ncompiler {}\n", program_version(), kCompiler));
  const auto worker = run_program({settings.worker.program, "--version"}, kWorkerVersionLimit);
  if (!worker || worker->status != 0) {
    const std::string reason =
        worker ? fmt::format("{} --version ended with {}", settings.worker.program, worker->status)
               : worker.error().message;
    return report(console, ExitCode::kFailure, fmt::format("engines are not known: {}", reason));
  }
  console.out(without_controls(worker->text));
  return ExitCode::kOk;
}

ExitCode report(const Console& console, ExitCode code, const std::string& message) {
  console.err(fmt::format("pensieve: {}\n", without_controls(message)));
  return code;
}

}  // namespace pensieve::cli
