// The one table of settings: names, types, ranges and help. Files, environment, flags, help texts
// and documentation are all read from it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "config/settings.h"

namespace pensieve::config {

/// A setting's value as a source spells it, before it is checked against its key.
using Value = std::variant<std::string, std::int64_t, double, std::vector<std::string>>;

/// Where in a Settings the value of a key lives; the alternative is its type.
using Field =
    std::variant<std::string*, std::uint16_t*, std::uint32_t*, double*, std::vector<std::string>*,
                 EngineChoice*, EmergencyChoice*, log::Severity*>;

struct Key {
  std::string_view path;  // "memory.critical_gb"; without a dot at the top level.
  std::string_view flag;  // "--port"; empty where there is none.
  Field (*field)(Settings&);
  double least = 0;  // Both bounds are in the range; numbers only.
  double most = 0;
  std::string_view unit;  // Empty where there is none.
  std::string_view help;  // One line: effect, and the meaning of 0 or empty.
  bool secret = false;    // Listings show only whether it is set.

  std::string_view section() const;  // Empty at the top level.
  std::string_view word() const;     // The path's last word, the key in a TOML file.
  std::string variable() const;      // "PENSIEVE_MEMORY_CRITICAL_GB"
  std::string expected() const;      // "a number from 0.001 to 1048576 (GB)", for messages.
  std::string default_text() const;  // As TOML.
};

/// In the order of documentation; keys of one section stand together, the top level first.
std::span<const Key> keys();

const Key* find_key(std::string_view path);

/// Checks `value` and stores it. Errors: what was expected and what was found, without the name of
/// the key; `settings` is unchanged then.
Result<void> store(const Key& key, const Value& value, Settings& settings);

/// The same from text, as variables and flags have it; lists are separated by commas.
Result<void> store_text(const Key& key, std::string_view text, Settings& settings);

/// The value as TOML.
std::string text_of(const Key& key, const Settings& settings);

/// The documented settings file with every key at its default, commented out.
std::string documentation();

}  // namespace pensieve::config
