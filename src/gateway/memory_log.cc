#include "gateway/memory_log.h"

#include <fmt/core.h>

#include "base/log.h"
#include "memory/report.h"

namespace pensieve::gateway {

void MemoryLog::note(const memory::Monitor::Status& status, const memory::Forecast& forecast) {
  note_level(status);
  note_signals(status);
  note_forecast(forecast);
}

void MemoryLog::note_forecast(const memory::Forecast& forecast) {
  if (forecast.alert == alert_) return;
  alert_ = forecast.alert;
  if (!alert_) {
    log::info("memory forecast: no floor is in sight any more");
    return;
  }
  const double mib = forecast.bytes_per_second / (1024.0 * 1024.0);
  log::warning("memory forecast: {} (trend {:.1f} MiB/s, confidence {:.0f} %)",
               memory::forecast_text(forecast), mib, forecast.confidence * 100);
}

void MemoryLog::note_level(const memory::Monitor::Status& status) {
  if (level_ == status.level) return;
  std::string figure = status.available
                           ? fmt::format("{}GB available, limited by {}",
                                         memory::gb_text(*status.available), status.limited_by)
                           : "not readable: " + status.last_failure;
  if (!status.worsened_by.empty()) figure += "; worsened: " + status.worsened_by;
  if (level_ && status.level > memory::Level::kCaution) {
    log::warning("memory level {}: {}", memory::name(status.level), figure);
  } else if (level_) {
    log::info("memory level {}: {}", memory::name(status.level), figure);
  }
  level_ = status.level;
}

void MemoryLog::note_signals(const memory::Monitor::Status& status) {
  const bool unreadable = status.signals && status.signals->any_unreadable();
  if (unreadable == signals_unreadable_) return;
  if (unreadable) {
    // At Safe signals are not heard, so it is of no interest that one is silent.
    if (status.measured == memory::Level::kSafe) return;
    log::warning("a memory signal cannot be read and counts as pressure: {}",
                 memory::unreadable_signals(*status.signals));
  } else {
    log::info("all memory signals can be read again");
  }
  signals_unreadable_ = unreadable;
}

}  // namespace pensieve::gateway
