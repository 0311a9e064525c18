// Where commands write to, and what the terminal there can show.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace pensieve::cli {

struct Console {
  std::function<void(std::string_view)> out;  // Results; written at once.
  std::function<void(std::string_view)> err;  // Errors, progress, figures.
  bool out_is_terminal = false;
  bool err_is_dimmable = false;  // A terminal that is not asked to be plain.
  bool unicode = false;          // Marks may be more than ASCII.
};

/// The process's own streams; colour and marks as `environment` (NO_COLOR, TERM, LC_*) allows.
Console process_console(const std::map<std::string, std::string>& environment);

/// `text` without the control characters by which a model's output could steer a terminal. Tabs,
/// line ends and all UTF-8 stay; C1 controls (U+0080 to U+009F) go as well.
std::string without_controls(std::string_view text);

}  // namespace pensieve::cli
