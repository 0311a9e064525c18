// A TOML file as a flat list of keys with their lines; the only place that knows the TOML library.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/keys.h"

namespace pensieve::config {

struct TomlEntry {
  std::string path;  // "memory.critical_gb"
  std::uint32_t line = 0;
  /// Empty where the value is of a kind that no setting has (dates, nested lists, ...).
  std::optional<Value> value;
  std::string kind;  // For messages: "a date", "a section", ...
};

/// The entries of `text` in the order of their lines; a section without keys is an entry too.
/// Errors: kInvalidArgument with `file` and line where the text is not TOML.
Result<std::vector<TomlEntry>> parse_toml(std::string_view text, std::string_view file);

}  // namespace pensieve::config
