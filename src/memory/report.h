// Memory figures as text: for headers, messages and the lines around each generation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "memory/memory_source.h"

namespace pensieve::memory {

/// Units of 2^30 bytes with two decimals, rounded down: "0.99" for one byte below 1 GiB, so that
/// a figure never looks like the good side of a floor that it missed.
std::string gb_text(Bytes bytes);

enum class Moment : std::uint8_t { kBefore, kAfter };  // Of one generation.

/// `[MEMORY BEFORE] Available: 12.34GB / 16.00GB (22.9% used)`, or
/// `[MEMORY BEFORE] Available: unknown`. Available is unknown where `total` is: a share of
/// nothing known cannot be told.
std::string report_line(Moment moment, std::optional<Bytes> available, std::optional<Bytes> total);

/// The same; where the reading failed, followed by the reason: `... unknown (why)`.
std::string report_line(Moment moment, const Result<Reading>& reading);

}  // namespace pensieve::memory
