// What the log says of the memory over time: one line when something begins or ends, never one per
// reading.
#pragma once

#include <optional>
#include <string>

#include "memory/monitor.h"

namespace pensieve::gateway {

/// Thread-safety: one thread at a time.
class MemoryLog {
 public:
  /// Logs what has changed since the last call: the level; a forecast's alert; and, below Safe,
  /// that a signal cannot be read, and that it can again.
  void note(const memory::Monitor::Status& status, const memory::Forecast& forecast);

 private:
  void note_level(const memory::Monitor::Status& status);
  void note_signals(const memory::Monitor::Status& status);
  void note_forecast(const memory::Forecast& forecast);

  std::optional<memory::Level> level_;  // As last logged, or found at start.
  bool signals_unreadable_ = false;     // That much has been logged.
  bool alert_ = false;
};

}  // namespace pensieve::gateway
