// Brings the settings together: defaults, TOML file, environment, flags; later wins.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/settings.h"

namespace pensieve::config {

/// Everything that settings are made from. Tests fill it by hand; the command line fills it from
/// the process. Only the settings file itself is read from the disk.
struct Sources {
  struct Flag {
    std::string name;  // "--port"
    std::string text;
  };

  std::map<std::string, std::string> environment;
  std::vector<Flag> flags;  // Flags of the table and "--config".
  std::string working_directory;
  std::string program_directory;  // Where the running program lies.
};

/// One line of `pensieve config`.
struct Setting {
  std::string key;     // "memory.critical_gb"
  std::string value;   // As TOML; of a secret only whether it is set.
  std::string origin;  // "default", "/etc/pensieve.toml:3", "PENSIEVE_PORT", "--port"
};

struct LoadedSettings {
  Settings settings;
  std::vector<Setting> listing;       // Every key, in the table's order.
  std::string file;                   // The settings file that was read; empty where none was.
  std::vector<std::string> warnings;  // Unknown PENSIEVE_* variables.

  bool is_default(std::string_view key) const;
};

/// Errors: kInvalidArgument or kNotFound, with file and line, the variable's name or the flag. A
/// file that was named must exist; the default one need not. An unknown key in a file is an error;
/// an unknown variable is one only where it looks like a mistyped known one, because others may
/// use the prefix.
Result<LoadedSettings> load(const Sources& sources);

}  // namespace pensieve::config
