#include "memory/report.h"

#include <string_view>

#include <fmt/core.h>

namespace pensieve::memory {
namespace {

std::string_view label(Moment moment) {
  return moment == Moment::kBefore ? "[MEMORY BEFORE]" : "[MEMORY AFTER]";
}

}  // namespace

std::string gb_text(Bytes bytes) {
  constexpr std::uint64_t kGiB = 1ULL << 30;
  const std::uint64_t whole = bytes.count() / kGiB;
  const std::uint64_t hundredths = bytes.count() % kGiB * 100 / kGiB;
  return fmt::format("{}.{:02}", whole, hundredths);
}

std::string report_line(Moment moment, std::optional<Bytes> available, std::optional<Bytes> total) {
  if (!available || !total || *total == Bytes()) {
    return fmt::format("{} Available: unknown", label(moment));
  }
  const double used_share = to_gb(saturating_sub(*total, *available)) / to_gb(*total);
  return fmt::format("{} Available: {}GB / {}GB ({:.1f}% used)", label(moment), gb_text(*available),
                     gb_text(*total), used_share * 100);
}

std::string report_line(Moment moment, const Result<Reading>& reading) {
  if (reading) return report_line(moment, reading->available, reading->total);
  return fmt::format("{} Available: unknown ({})", label(moment), reading.error().message);
}

}  // namespace pensieve::memory
