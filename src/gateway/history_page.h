// GET /v1/pensieve/memory/history: what the memory has been like, for the dashboard.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "memory/history.h"

namespace pensieve::gateway {

/// The body for `query`, the part of the URL after the "?": `window=hour` (the default) or
/// `window=day`. Empty where it asks for anything else.
///
/// Columns of equal length, oldest first, one entry per `step_seconds`; the last one is the step
/// that runs now. `null` where nothing was known. At most 3,600 entries: about 220 KB.
std::optional<std::string> history_body(const memory::History& history, std::string_view query);

}  // namespace pensieve::gateway
