// Log lines to stderr: one thread-safe sink, one format, levels. Control data never goes here.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace pensieve::log {

enum class Severity : std::uint8_t { kDebug, kInfo, kWarning, kError };

/// Starts the sink; before this, and for tests, lines go to stderr unbuffered. `program` is put
/// in each line. Lines are queued (bounded; the oldest is dropped when full), so that a terminal
/// that does not read can never stop a request.
void start(std::string_view program, Severity least);

/// Writes what is queued. Call before the process ends.
void stop();

void write(Severity severity, std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Severity::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Severity::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Severity::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Severity::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace pensieve::log
