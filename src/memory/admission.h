// May a new request start? The pure decision, and the values of the two memory headers.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "memory/level.h"
#include "memory/monitor.h"

namespace pensieve::memory {

struct Admit {
  bool warn = false;  // At Warning: the request goes on, and a line is logged.
};

struct Refuse {
  Level level = kLevelWhenUnknown;
  std::optional<Bytes> available;
  std::string reason;                   // For the client: the API error's message.
  std::chrono::seconds retry_after{1};  // 1 to 60 s; clients ignore more.
};

using Admission = std::variant<Admit, Refuse>;

/// Admits at Safe, Caution and Warning; refuses at Critical, at Emergency, and whenever the
/// available memory is not known, whatever the level says.
Admission decide(const Monitor::Status& status);

/// Value of the response header `x-memory-status`.
std::string_view memory_status_header(const Monitor::Status& status);

/// Value of `x-available-memory-gb`: "0.75", or "unknown".
std::string available_memory_header(const Monitor::Status& status);

}  // namespace pensieve::memory
