#include "model/estimate_book.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "base/log.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::uint32_t kFullRunsLeast = 3;
constexpr int kVersion = 1;

json::object to_json(const Experience& experience) {
  const Run& last = experience.last;
  return {{"runs", experience.runs},
          {"above_bytes", experience.above.count()},
          {"full_runs", experience.full_runs},
          {"unused_bytes", experience.unused.count()},
          {"order", experience.order},
          {"last_planned_bytes", last.planned.count()},
          {"last_peak_bytes", last.peak.count()},
          {"last_resident_peak_bytes", last.resident_peak.count()},
          {"last_above_bytes", last.above.count()},
          {"last_was_full", last.was_full}};
}

/// Throws where something is missing, of a wrong type, or larger than any machine.
Experience experience_from(const json::value& value) {
  const json::object& object = value.as_object();
  const auto count = [&](std::string_view name) {
    return object.at(name).to_number<std::uint64_t>();
  };
  const auto bytes = [&](std::string_view name) {
    const std::uint64_t number = count(name);
    if (number > (1ULL << 50)) throw std::out_of_range(std::string(name));
    return Bytes(number);
  };
  Experience experience;
  experience.runs = object.at("runs").to_number<std::uint32_t>();
  experience.above = bytes("above_bytes");
  experience.full_runs = object.at("full_runs").to_number<std::uint32_t>();
  experience.unused = bytes("unused_bytes");
  experience.order = count("order");
  experience.last = {.planned = bytes("last_planned_bytes"),
                     .peak = bytes("last_peak_bytes"),
                     .resident_peak = bytes("last_resident_peak_bytes"),
                     .above = bytes("last_above_bytes"),
                     .was_full = object.at("last_was_full").as_bool()};
  return experience;
}

}  // namespace

Experience learned(const std::optional<Experience>& before, const Run& run) {
  Experience after = before.value_or(Experience());
  ++after.runs;
  after.last = run;
  after.above = std::max(run.above, Bytes(after.above.count() / 2));
  if (run.above > Bytes()) {
    after.full_runs = 0;
    after.unused = Bytes();
  } else if (run.was_full) {
    const Bytes unused = saturating_sub(run.planned, run.peak);
    after.unused = after.full_runs == 0 ? unused : std::min(after.unused, unused);
    ++after.full_runs;
  }
  return after;
}

engine::MemoryEstimate corrected(engine::MemoryEstimate estimate, const Experience& experience) {
  if (experience.above > Bytes()) {
    const std::uint64_t margin = correction_margin(experience.above).count();
    const std::uint64_t raise =
        std::min(experience.above.count() + margin, estimate.anonymous().count());
    estimate.process = Bytes(estimate.process.count() + raise);
    return estimate;
  }
  if (experience.full_runs < kFullRunsLeast) return estimate;
  const Bytes spare =
      saturating_sub(saturating_sub(experience.unused, correction_margin(experience.last.planned)),
                     estimate.grammars);
  const Bytes lower =
      std::min(spare, Bytes((estimate.process.count() + estimate.compute.count()) / 4));
  const Bytes of_process = std::min(lower, Bytes(estimate.process.count() / 2));
  estimate.process = saturating_sub(estimate.process, of_process);
  estimate.compute = saturating_sub(estimate.compute, saturating_sub(lower, of_process));
  return estimate;
}

EstimateBook::EstimateBook(std::string path) : path_(std::move(path)) {
  if (!path_.empty()) read();
}

std::optional<Experience> EstimateBook::find(const std::string& key) const {
  const auto found = models_.find(key);
  if (key.empty() || found == models_.end()) return std::nullopt;
  return found->second;
}

void EstimateBook::remember(const std::string& key, Experience experience) {
  if (key.empty() || key.size() > kKeyBytesMax) return;
  const auto is_older = [](const auto& a, const auto& b) {
    return a.second.order < b.second.order;
  };
  const auto newest = std::max_element(models_.begin(), models_.end(), is_older);
  experience.order = newest == models_.end() ? 1 : newest->second.order + 1;
  models_[key] = experience;
  if (models_.size() > kModelsMax) {
    models_.erase(std::min_element(models_.begin(), models_.end(), is_older));
  }
  if (!path_.empty()) write();
}

void EstimateBook::read() {
  std::error_code error;
  if (!fs::exists(path_, error)) return;
  std::ifstream file(path_, std::ios::binary);
  std::string text(kFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  try {
    if (text.size() > kFileBytesMax) throw std::length_error("it is too large");
    const json::value value = json::parse(text);
    if (value.at("version").to_number<int>() != kVersion) throw std::range_error("its version");
    std::map<std::string, Experience> models;
    for (const auto& [key, entry] : value.at("models").as_object()) {
      if (models.size() == kModelsMax) throw std::length_error("it has too many models");
      models[std::string(key)] = experience_from(entry);
    }
    models_ = std::move(models);
  } catch (const std::exception& what) {
    log::warning("{} is ignored, models are estimated without it: {}", path_, what.what());
  }
}

/// Another name and then a rename: a reader, or a crash, never meets half a file.
void EstimateBook::write() {
  json::object models;
  for (const auto& [key, experience] : models_) models[key] = to_json(experience);
  const json::object value{{"version", kVersion}, {"models", std::move(models)}};
  const std::string temporary = path_ + ".new";
  std::error_code error;
  fs::create_directories(fs::path(path_).parent_path(), error);
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file << json::serialize(value);
    file.close();
    if (!file) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) fs::rename(temporary, path_, error);
  if (error && !unwritable_) {
    log::warning("{} cannot be written ({}): what models take is forgotten at the end", path_,
                 error.message());
  }
  unwritable_ = static_cast<bool>(error);
}

std::string estimate_key(const std::string& path, std::string_view engine,
                         std::uint32_t sequences_max, std::uint32_t step_tokens_max,
                         const std::string& projector_path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  std::string key = fmt::format("{}|{}|{}|{}|{}|{}", engine, fs::path(path).filename().string(),
                                status.st_size, status.st_mtime, sequences_max, step_tokens_max);
  if (projector_path.empty()) return key;
  if (::stat(projector_path.c_str(), &status) != 0) return {};
  return fmt::format("{}|{}|{}|{}", key, fs::path(projector_path).filename().string(),
                     status.st_size, status.st_mtime);
}

std::string default_estimates_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return fmt::format("{}/pensieve/estimates.json", state);
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return fmt::format("{}/.local/state/pensieve/estimates.json", home);
}

}  // namespace pensieve::model
