#include "config/keys.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include <fmt/core.h>

namespace pensieve::config {
namespace {

// A floor below 1 MB or above 1 PB is a typing mistake on every machine.
constexpr double kFloorLeastGb = 0.001;
constexpr double kFloorMostGb = 1024 * 1024;

constexpr std::array kEngines{EngineChoice::kAuto, EngineChoice::kLlama, EngineChoice::kScripted};
constexpr std::array kEmergencyChoices{EmergencyChoice::kDropEngines, EmergencyChoice::kShutDown};
constexpr std::array kSeverities{log::Severity::kDebug, log::Severity::kInfo,
                                 log::Severity::kWarning, log::Severity::kError};

// The type of a key follows from the member that its `field` points to.
constexpr Key kKeys[] = {
    {"host", "--host", [](Settings& s) -> Field { return &s.host; }, 0, 0, "",
     "Address to listen on. One that other machines can reach demands [server] api_key or keys."},
    {"port", "--port", [](Settings& s) -> Field { return &s.port; }, 0, 65535, "",
     "TCP port to listen on. 0: any free one, printed at start."},
    {"model", "--model", [](Settings& s) -> Field { return &s.model; }, 0, 0, "",
     "Model to serve: a name found in [models] directory, or the path of a model file."},
    {"engine", "--engine", [](Settings& s) -> Field { return &s.engine; }, 0, 0, "",
     "Engine that runs the model. auto: by the kind of the model's file."},
    {"context", "--context", [](Settings& s) -> Field { return &s.context; }, 0, 1 << 24, "tokens",
     "Context window. 0: chosen from the model's own window and the memory there is."},
    {"parallel", "--parallel", [](Settings& s) -> Field { return &s.parallel; }, 1, 64, "requests",
     "Most requests that generate at once; further ones wait in the queue."},
    {"threads", "--threads", [](Settings& s) -> Field { return &s.threads; }, 0, 1024, "threads",
     "Threads that compute. 0: one per core."},
    {"log_level", "--log-level", [](Settings& s) -> Field { return &s.log_level; }, 0, 0, "",
     "Least severity that is written to the log on stderr."},

    {"memory.caution_gb", "", [](Settings& s) -> Field { return &s.memory.caution_gb; },
     kFloorLeastGb, kFloorMostGb, "GB of 2^30 bytes",
     "Available memory below this is Caution: caches stop growing."},
    {"memory.warning_gb", "", [](Settings& s) -> Field { return &s.memory.warning_gb; },
     kFloorLeastGb, kFloorMostGb, "GB of 2^30 bytes",
     "Below this is Warning: logged; only work whose memory fits is admitted."},
    {"memory.critical_gb", "", [](Settings& s) -> Field { return &s.memory.critical_gb; },
     kFloorLeastGb, kFloorMostGb, "GB of 2^30 bytes",
     "Below this is Critical: new requests get 503, running ones go on."},
    {"memory.emergency_gb", "", [](Settings& s) -> Field { return &s.memory.emergency_gb; },
     kFloorLeastGb, kFloorMostGb, "GB of 2^30 bytes",
     "Below this is Emergency: 503; running requests end, newest first, then engines are dropped."},
    {"memory.recovery_hold_ms", "", [](Settings& s) -> Field { return &s.memory.recovery_hold_ms; },
     1, 600'000, "milliseconds",
     "How long memory must stay better before the level follows; keeps admission from flapping."},
    {"memory.on_emergency", "", [](Settings& s) -> Field { return &s.memory.on_emergency; }, 0, 0,
     "",
     "What an Emergency that outlasts the engines leads to: the server goes on refusing, or ends."},

    {"server.queue_max", "", [](Settings& s) -> Field { return &s.server.queue_max; }, 1, 4096,
     "requests", "Most requests that wait for a place; the next one gets 529."},
    {"server.body_max_mb", "", [](Settings& s) -> Field { return &s.server.body_max_mb; }, 1, 1024,
     "MB of 2^20 bytes", "Largest request body; a larger one gets 413."},
    {"server.buffers_max_mb", "", [](Settings& s) -> Field { return &s.server.buffers_max_mb; },
     256, 65536, "MB of 2^20 bytes",
     "Most that all requests together hold in the server; what does not fit gets 503."},
    {"server.drain_seconds", "", [](Settings& s) -> Field { return &s.server.drain_seconds; }, 0,
     3600, "seconds", "How long running requests may go on after Ctrl+C or `pensieve stop`."},
    {"server.hang_seconds", "", [](Settings& s) -> Field { return &s.server.hang_seconds; }, 1,
     3600, "seconds", "A worker that shows no progress for so long is killed and replaced."},
    {"server.api_key", "", [](Settings& s) -> Field { return &s.server.api_key; }, 0, 0, "",
     "Key that clients must send (x-api-key or Bearer). Empty, and no `keys`: none is asked for.",
     true},
    {"server.keys", "", [](Settings& s) -> Field { return &s.server.keys; }, 0, 0, "",
     "Further keys, each \"NAME SECRET [requests=N] [tokens_per_day=N]\". Empty: none.", true},
    {"server.allowed_origins", "", [](Settings& s) -> Field { return &s.server.allowed_origins; },
     0, 0, "",
     "Origins of web pages and extensions that may call the server, as \"http://host:port\". "
     "Empty: none."},

    {"models.directory", "", [](Settings& s) -> Field { return &s.models.directory; }, 0, 0, "",
     "Folders with models. Empty: ./models and ${XDG_CACHE_HOME:-~/.cache}/pensieve/models."},
    {"models.aliases", "", [](Settings& s) -> Field { return &s.models.aliases; }, 0, 0, "",
     "Further names that clients may use for the model, beside its own and all claude-* names."},

    {"models.projector", "--mmproj", [](Settings& s) -> Field { return &s.models.projector; }, 0, 0,
     "",
     "Projector file (mmproj) that reads images for the model, or \"none\". Empty: the one beside "
     "it."},

    {"worker.program", "", [](Settings& s) -> Field { return &s.worker.program; }, 0, 0, "",
     "Program that runs a model. Empty: `pensieve-worker` beside `pensieve`."},

    {"cache.memory_max_gb", "", [](Settings& s) -> Field { return &s.cache.memory_max_gb; }, 0,
     kFloorMostGb, "GB of 2^30 bytes",
     "Most memory for conversations that rest; taken only while memory is Safe. 0: none."},
    {"cache.disk_max_gb", "", [](Settings& s) -> Field { return &s.cache.disk_max_gb; }, 0,
     kFloorMostGb, "GB of 2^30 bytes",
     "Most disk for conversations that rest, so that a restart starts warm. 0: none."},
    {"cache.directory", "", [](Settings& s) -> Field { return &s.cache.directory; }, 0, 0, "",
     "Their folder, yours alone. Empty: ${XDG_CACHE_HOME:-~/.cache}/pensieve/prefixes."},

    {"batches.directory", "", [](Settings& s) -> Field { return &s.batches.directory; }, 0, 0, "",
     "Folder of message batches. Empty: ${XDG_STATE_HOME:-~/.local/state}/pensieve/batches."},
};

/// A TOML basic string.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string shown(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  return "a list";
}

template <class Number>
std::optional<Value> parse_whole(std::string_view text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return Value(number);
}

/// What a variable or flag means for the type of `field`. Text that is no number stays text, and
/// store() then says what was expected.
Value value_of_text(const Field& field, std::string_view text) {
  const bool integer = std::holds_alternative<std::uint16_t*>(field) ||
                       std::holds_alternative<std::uint32_t*>(field);
  if (integer || std::holds_alternative<double*>(field)) {
    if (const auto whole = parse_whole<std::int64_t>(text)) return *whole;
    if (const auto number = parse_whole<double>(text)) return *number;
  }
  if (std::holds_alternative<std::vector<std::string>*>(field)) {
    std::vector<std::string> items;
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t comma = std::min(text.find(',', at), text.size());
      if (comma > at) items.emplace_back(text.substr(at, comma - at));
      at = comma + 1;
    }
    return items;
  }
  return std::string(text);
}

template <class Choice, std::size_t kCount>
bool store_choice(const std::array<Choice, kCount>& choices, const Value& value, Choice& out) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) return false;
  for (const Choice choice : choices) {
    if (name(choice) == *text) {
      out = choice;
      return true;
    }
  }
  return false;
}

/// Stores into one type of field; false where the value does not fit type or range.
struct Store {
  const Key& key;
  const Value& value;

  bool in_range(double number) const { return number >= key.least && number <= key.most; }

  bool operator()(std::string* out) const {
    const auto* text = std::get_if<std::string>(&value);
    if (text != nullptr) *out = *text;
    return text != nullptr;
  }
  bool operator()(std::vector<std::string>* out) const {
    const auto* items = std::get_if<std::vector<std::string>>(&value);
    if (items != nullptr) *out = *items;
    return items != nullptr;
  }
  template <std::unsigned_integral Integer>
  bool operator()(Integer* out) const {
    const auto* whole = std::get_if<std::int64_t>(&value);
    if (whole == nullptr || !in_range(static_cast<double>(*whole))) return false;
    *out = static_cast<Integer>(*whole);
    return true;
  }
  bool operator()(double* out) const {
    double number = std::nan("");  // In no range.
    if (const auto* whole = std::get_if<std::int64_t>(&value)) number = static_cast<double>(*whole);
    if (const auto* real = std::get_if<double>(&value)) number = *real;
    if (!in_range(number)) return false;
    *out = number;
    return true;
  }
  bool operator()(EngineChoice* out) const { return store_choice(kEngines, value, *out); }
  bool operator()(EmergencyChoice* out) const {
    return store_choice(kEmergencyChoices, value, *out);
  }
  bool operator()(log::Severity* out) const { return store_choice(kSeverities, value, *out); }
};

struct Expected {
  const Key& key;

  std::string range(std::string_view what) const {
    std::string text = fmt::format("{} from {} to {}", what, key.least, key.most);
    if (!key.unit.empty()) text += fmt::format(" ({})", key.unit);
    return text;
  }
  template <class Choices>
  static std::string one_of(const Choices& choices) {
    std::string text = "one of";
    for (const auto choice : choices) text += fmt::format(" {}", quoted(name(choice)));
    return text;
  }
  std::string operator()(std::string*) const { return "text"; }
  std::string operator()(std::vector<std::string>*) const { return "a list of texts"; }
  std::string operator()(std::uint16_t*) const { return range("a whole number"); }
  std::string operator()(std::uint32_t*) const { return range("a whole number"); }
  std::string operator()(double*) const { return range("a number"); }
  std::string operator()(EngineChoice*) const { return one_of(kEngines); }
  std::string operator()(EmergencyChoice*) const { return one_of(kEmergencyChoices); }
  std::string operator()(log::Severity*) const { return one_of(kSeverities); }
};

struct Text {
  std::string operator()(const std::string* text) const { return quoted(*text); }
  std::string operator()(const std::vector<std::string>* items) const {
    std::string text = "[";
    for (const std::string& item : *items) {
      if (text.size() > 1) text += ", ";
      text += quoted(item);
    }
    return text + "]";
  }
  std::string operator()(const double* number) const { return fmt::format("{}", *number); }
  std::string operator()(const EngineChoice* choice) const { return quoted(name(*choice)); }
  std::string operator()(const EmergencyChoice* choice) const { return quoted(name(*choice)); }
  std::string operator()(const log::Severity* choice) const { return quoted(name(*choice)); }
  template <std::unsigned_integral Integer>
  std::string operator()(const Integer* integer) const {
    return fmt::format("{}", *integer);
  }
};

}  // namespace

std::string_view name(EngineChoice engine) {
  switch (engine) {
    case EngineChoice::kAuto:
      return "auto";
    case EngineChoice::kLlama:
      return "llama";
    case EngineChoice::kScripted:
      return "scripted";
  }
  PENSIEVE_CHECK(false);
}

std::string_view name(EmergencyChoice choice) {
  switch (choice) {
    case EmergencyChoice::kDropEngines:
      return "drop-engines";
    case EmergencyChoice::kShutDown:
      return "shutdown";
  }
  PENSIEVE_CHECK(false);
}

std::string_view name(log::Severity severity) {
  switch (severity) {
    case log::Severity::kDebug:
      return "debug";
    case log::Severity::kInfo:
      return "info";
    case log::Severity::kWarning:
      return "warning";
    case log::Severity::kError:
      return "error";
  }
  PENSIEVE_CHECK(false);
}

std::string_view Key::section() const {
  const std::size_t dot = path.find('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

std::string_view Key::word() const {
  const std::size_t dot = path.find('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

std::string Key::variable() const {
  std::string text = "PENSIEVE_";
  for (const char c : path) {
    const bool lower = c >= 'a' && c <= 'z';
    text += c == '.' ? '_' : lower ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return text;
}

std::string Key::expected() const {
  Settings settings;
  return std::visit(Expected{*this}, field(settings));
}

std::string Key::default_text() const {
  return text_of(*this, Settings());
}

std::span<const Key> keys() {
  return kKeys;
}

const Key* find_key(std::string_view path) {
  const auto* found = std::ranges::find(kKeys, path, &Key::path);
  return found == std::end(kKeys) ? nullptr : found;
}

Result<void> store(const Key& key, const Value& value, Settings& settings) {
  if (std::visit(Store{key, value}, key.field(settings))) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("expected {}, found {}", key.expected(), shown(value)));
}

Result<void> store_text(const Key& key, std::string_view text, Settings& settings) {
  return store(key, value_of_text(key.field(settings), text), settings);
}

std::string text_of(const Key& key, const Settings& settings) {
  Settings copy = settings;  // `field` hands out pointers to write through.
  return std::visit(Text(), key.field(copy));
}

std::string documentation() {
  std::string text =
      "# Settings of pensieve. Every key stands here at its default, commented out.\n"
      "# Read from: --config FILE, else PENSIEVE_CONFIG, else\n"
      "# ${XDG_CONFIG_HOME:-~/.config}/pensieve/pensieve.toml. Never from the working directory,\n"
      "# which may be somebody else's and could name a program to run.\n"
      "# Later wins: defaults, this file, environment variables, flags. An empty variable counts\n"
      "# as not set; lists in variables are separated by commas; `~/` is the home folder.\n"
      "# `pensieve config` prints the result and where each value came from.\n"
      "# This file is the output of `pensieve config --template`.\n";
  std::string_view section;
  for (const Key& key : kKeys) {
    if (key.section() != section) {
      section = key.section();
      text += fmt::format("\n[{}]\n", section);
    }
    std::string names = key.variable();
    if (!key.flag.empty()) names += fmt::format(", {}", key.flag);
    text += fmt::format("\n# {}\n# Takes {}. Also: {}\n#{} = {}\n", key.help, key.expected(), names,
                        key.word(), key.default_text());
  }
  return text;
}

}  // namespace pensieve::config
