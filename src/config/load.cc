#include "config/load.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include <fmt/core.h>

#include "config/api_key.h"
#include "config/keys.h"
#include "config/nearest.h"
#include "config/toml_file.h"

namespace pensieve::config {
namespace {

namespace fs = std::filesystem;

// A settings file is a few KB; more is a wrong path (a model, a device).
constexpr std::uintmax_t kFileBytesMax = 1 << 20;

constexpr std::string_view kPrefix = "PENSIEVE_";
/// Known variables that are no settings: the file's path, and what scripts/claude-local reads.
constexpr std::string_view kConfigVariable = "PENSIEVE_CONFIG";
constexpr std::string_view kOtherVariables[] = {kConfigVariable, "PENSIEVE_CLAUDE_MODEL"};

/// "https://host:port", and what browsers' extensions and programs made of web pages send
/// ("chrome-extension://id", "app://name").
bool is_origin(std::string_view text) {
  constexpr std::string_view kSchemeCharacters = "abcdefghijklmnopqrstuvwxyz0123456789+-.";
  const std::size_t scheme = text.find("://");
  if (scheme == std::string_view::npos || scheme == 0) return false;
  const std::string_view host = text.substr(scheme + 3);
  return text.find_first_not_of(kSchemeCharacters) == scheme && !host.empty() &&
         host.find('/') == std::string_view::npos;
}

/// The variable's text; an empty one counts as not set.
std::optional<std::string> variable(const Sources& sources, std::string_view name) {
  const auto found = sources.environment.find(std::string(name));
  if (found == sources.environment.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

/// `$variable`, else `~/fallback`; empty where the home folder is unknown as well. The XDG
/// specification says that a relative path in these variables is to be ignored.
std::string user_folder(const Sources& sources, std::string_view name, std::string_view fallback) {
  const auto folder = variable(sources, name);
  if (folder && folder->front() == '/') return *folder;
  const auto home = variable(sources, "HOME");
  return home ? fmt::format("{}/{}", *home, fallback) : std::string();
}

struct ConfigFile {
  std::string path;      // Empty: none.
  std::string named_by;  // Who demands it; empty where it need not exist.
};

ConfigFile config_file(const Sources& sources) {
  for (const Sources::Flag& flag : sources.flags) {
    if (flag.name == "--config") return {flag.text, flag.name};
  }
  if (const auto path = variable(sources, kConfigVariable)) {
    return {*path, std::string(kConfigVariable)};
  }
  const std::string folder = user_folder(sources, "XDG_CONFIG_HOME", ".config");
  return {folder.empty() ? "" : folder + "/pensieve/pensieve.toml", ""};
}

class Loader {
 public:
  explicit Loader(const Sources& sources) : sources_(sources) {
    for (const Key& key : keys()) origins_.emplace_back(key.path, "default");
  }

  Result<LoadedSettings> run() {
    using Step = Result<void> (Loader::*)();
    for (const Step step : {&Loader::read_file, &Loader::read_environment, &Loader::read_flags,
                            &Loader::fill_in, &Loader::check}) {
      if (auto done = (this->*step)(); !done) return std::unexpected(done.error());
    }
    for (const auto& [path, origin] : origins_) {
      const Key& key = *find_key(path);
      std::string value = text_of(key, loaded_.settings);
      if (key.secret && value != key.default_text()) value = "\"(set, not shown)\"";
      loaded_.listing.push_back({std::string(path), std::move(value), origin});
    }
    return std::move(loaded_);
  }

 private:
  std::string& origin(std::string_view path) {
    return std::ranges::find(origins_, path,
                             [](const auto& entry) { return std::string_view(entry.first); })
        ->second;
  }

  Result<void> read_file() {
    const ConfigFile file = config_file(sources_);
    if (file.path.empty() && file.named_by.empty()) return {};
    std::error_code error;
    const bool exists = fs::exists(file.path, error);
    if (!exists && !error && file.named_by.empty()) return {};
    if (!exists) {
      return fail(Code::kNotFound,
                  fmt::format("{}: no settings file at \"{}\"{}", file.named_by, file.path,
                              error ? " (" + error.message() + ")" : ""));
    }
    if (!fs::is_regular_file(file.path, error) || fs::file_size(file.path, error) > kFileBytesMax) {
      return fail(Code::kInvalidArgument,
                  fmt::format("{}: not a settings file (a regular file up to 1 MB)", file.path));
    }
    std::ifstream stream(file.path, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    if (!stream) {
      return fail(Code::kInvalidArgument,
                  fmt::format("{}: cannot be read: {}", file.path, std::strerror(errno)));
    }
    loaded_.file = file.path;
    return apply_toml(text.str());
  }

  Result<void> apply_toml(std::string_view text) {
    const auto entries = parse_toml(text, loaded_.file);
    if (!entries) return std::unexpected(entries.error());
    for (const TomlEntry& entry : *entries) {
      const std::string place = fmt::format("{}:{}", loaded_.file, entry.line);
      const Key* key = find_key(entry.path);
      if (key == nullptr && is_section(entry)) continue;
      if (key == nullptr) return unknown_key(place, entry.path);
      if (!entry.value) {
        return fail(Code::kInvalidArgument, fmt::format("{}: {}: expected {}, found {}", place,
                                                        entry.path, key->expected(), entry.kind));
      }
      if (auto stored = store(*key, *entry.value, loaded_.settings); !stored) {
        return fail(Code::kInvalidArgument,
                    fmt::format("{}: {}: {}", place, entry.path, stored.error().message));
      }
      origin(key->path) = place;
    }
    return {};
  }

  /// A known section in which every key is commented out.
  static bool is_section(const TomlEntry& entry) {
    return entry.kind == "a section" &&
           std::ranges::any_of(keys(), [&](const Key& key) { return key.section() == entry.path; });
  }

  static Result<void> unknown_key(std::string_view place, std::string_view path) {
    std::vector<std::string> known;
    for (const Key& key : keys()) known.emplace_back(key.path);
    std::string text = fmt::format("{}: unknown key {}", place, path);
    const std::size_t dot = path.rfind('.');
    const auto word = dot == std::string_view::npos ? path : path.substr(dot + 1);
    // The right word in the wrong section is the commonest mistake of all.
    const auto moved = std::ranges::find(keys(), word, &Key::word);
    if (moved != keys().end()) {
      text += fmt::format("; did you mean {}?", moved->path);
    } else if (const auto meant = nearest(path, known)) {
      text += fmt::format("; did you mean {}?", *meant);
    } else {
      text += "; `pensieve config` lists the known ones";
    }
    return fail(Code::kInvalidArgument, std::move(text));
  }

  Result<void> read_environment() {
    std::vector<std::string> known(std::begin(kOtherVariables), std::end(kOtherVariables));
    for (const Key& key : keys()) {
      known.push_back(key.variable());
      const auto text = variable(sources_, known.back());
      if (!text) continue;
      if (auto stored = store_text(key, *text, loaded_.settings); !stored) {
        return fail(Code::kInvalidArgument,
                    fmt::format("{}: {}", known.back(), stored.error().message));
      }
      origin(key.path) = known.back();
    }
    for (const auto& [name, text] : sources_.environment) {
      if (!name.starts_with(kPrefix) || std::ranges::count(known, name) > 0) continue;
      if (const auto meant = mistyped(name, known)) {
        return fail(Code::kInvalidArgument,
                    fmt::format("{}: unknown variable; did you mean {}?", name, *meant));
      }
      loaded_.warnings.push_back(fmt::format("{}: unknown variable, ignored", name));
    }
    return {};
  }

  /// The known variable that `name` is a slip of: at most two letters of its own part are wrong.
  static std::optional<std::string> mistyped(std::string_view name,
                                             const std::vector<std::string>& known) {
    std::vector<std::string> parts;
    for (const std::string& variable_name : known) {
      parts.push_back(variable_name.substr(kPrefix.size()));
    }
    const std::string_view part = name.substr(kPrefix.size());
    const auto meant = nearest(part, parts);
    if (!meant || edit_distance(part, *meant) > 2) return std::nullopt;
    return std::string(kPrefix) + *meant;
  }

  Result<void> read_flags() {
    for (const Sources::Flag& flag : sources_.flags) {
      if (flag.name == "--config") continue;
      const auto key = std::ranges::find(keys(), flag.name, &Key::flag);
      PENSIEVE_CHECK(key != keys().end());
      if (auto stored = store_text(*key, flag.text, loaded_.settings); !stored) {
        return fail(Code::kInvalidArgument,
                    fmt::format("{}: {}", flag.name, stored.error().message));
      }
      origin(key->path) = flag.name;
    }
    return {};
  }

  /// Defaults that depend on where we are, and `~/` in paths.
  Result<void> fill_in() {
    Settings& settings = loaded_.settings;
    auto& directory = settings.models.directory;
    if (directory.empty()) {
      directory.push_back(sources_.working_directory + "/models");
      const std::string cache = user_folder(sources_, "XDG_CACHE_HOME", ".cache");
      if (!cache.empty()) directory.push_back(cache + "/pensieve/models");
    }
    if (settings.worker.program.empty()) {
      settings.worker.program = sources_.program_directory + "/pensieve-worker";
    }
    if (settings.cache.directory.empty()) {
      const std::string cache = user_folder(sources_, "XDG_CACHE_HOME", ".cache");
      if (!cache.empty()) settings.cache.directory = cache + "/pensieve/prefixes";
    }
    if (settings.batches.directory.empty()) {
      const std::string state = user_folder(sources_, "XDG_STATE_HOME", ".local/state");
      if (!state.empty()) settings.batches.directory = state + "/pensieve/batches";
    }
    const auto home = variable(sources_, "HOME");
    expand_home(settings.cache.directory, home);
    expand_home(settings.batches.directory, home);
    for (std::string& path : directory) expand_home(path, home);
    expand_home(settings.worker.program, home);
    expand_home(settings.model, home);
    return {};
  }

  static void expand_home(std::string& path, const std::optional<std::string>& home) {
    if (home && path.starts_with("~/")) path = *home + path.substr(1);
  }

  Result<void> check() {
    const Settings& settings = loaded_.settings;
    if (settings.host.empty()) return bad("host", "must not be empty");
    if (settings.model.empty()) return bad("model", "must not be empty");
    for (const std::string& item : settings.server.allowed_origins) {
      if (!is_origin(item)) {
        return bad("server.allowed_origins",
                   fmt::format("\"{}\" is no origin; write it as \"http://host:port\"", item));
      }
    }
    const auto api_keys = parse_api_keys(settings.server.keys);
    if (!api_keys) return bad("server.keys", api_keys.error().message);
    for (const ApiKey& key : *api_keys) {
      if (key.secret != settings.server.api_key) continue;
      return bad("server.keys", fmt::format("{} has the same secret as [server] api_key, so its "
                                            "limits would not hold",
                                            key.name));
    }
    const bool has_keys = !settings.server.api_key.empty() || !api_keys->empty();
    if (!is_loopback(settings.host) && !has_keys) {
      return bad("host", fmt::format("\"{}\" can be reached from other machines, so an API key is "
                                     "needed: set [server] api_key or keys (also: "
                                     "PENSIEVE_SERVER_API_KEY, PENSIEVE_SERVER_KEYS), or use "
                                     "127.0.0.1",
                                     settings.host));
    }
    return check_floors();
  }

  Result<void> check_floors() {
    constexpr std::string_view kFromBest[] = {"memory.caution_gb", "memory.warning_gb",
                                              "memory.critical_gb", "memory.emergency_gb"};
    const Settings::Memory& memory = loaded_.settings.memory;
    const double floors[] = {memory.caution_gb, memory.warning_gb, memory.critical_gb,
                             memory.emergency_gb};
    for (std::size_t i = 0; i + 1 < std::size(floors); ++i) {
      if (floors[i] > floors[i + 1]) continue;
      return bad(kFromBest[i],
                 fmt::format("the floors must fall from caution over warning and critical to "
                             "emergency, but {} GB is not above {} = {} GB ({})",
                             floors[i], kFromBest[i + 1], floors[i + 1], origin(kFromBest[i + 1])));
    }
    return {};
  }

  Result<void> bad(std::string_view path, std::string_view text) {
    return fail(Code::kInvalidArgument, fmt::format("{}: {}: {}", origin(path), path, text));
  }

  const Sources& sources_;
  LoadedSettings loaded_;
  std::vector<std::pair<std::string_view, std::string>> origins_;  // In the table's order.
};

}  // namespace

bool is_loopback(std::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  // Four numbers, the first of them 127: "127.evil.example" is a name, not an address.
  int parts = 0;
  for (std::size_t at = 0; at <= host.size(); ++parts) {
    const std::size_t dot = std::min(host.find('.', at), host.size());
    const std::string_view part = host.substr(at, dot - at);
    unsigned number = 256;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (error != std::errc() || stop != part.data() + part.size() || number > 255) return false;
    if (parts == 0 && number != 127) return false;
    at = dot + 1;
  }
  return parts == 4;
}

bool LoadedSettings::is_default(std::string_view key) const {
  const auto found = std::ranges::find(listing, key, &Setting::key);
  return found != listing.end() && found->origin == "default";
}

Result<LoadedSettings> load(const Sources& sources) {
  return Loader(sources).run();
}

}  // namespace pensieve::config
