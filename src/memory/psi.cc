#include "memory/psi.h"

#include <cstdint>
#include <limits>
#include <optional>

#include <fmt/core.h>

#include "memory/kernel_text.h"

namespace pensieve::memory {
namespace {

/// The value of the next word, which has to be `key=value`.
std::optional<std::string_view> next_value(std::string_view& line, std::string_view key) {
  const std::string_view word = next_word(line);
  if (!word.starts_with(key)) return std::nullopt;
  return word.substr(key.size());
}

/// "12.34", always with two decimals: psi_show() in the kernel writes "%lu.%02lu".
std::optional<double> parse_percent(std::optional<std::string_view> text) {
  if (!text || text->size() < 4 || (*text)[text->size() - 3] != '.') return std::nullopt;
  const std::optional<std::uint64_t> whole = parse_count(text->substr(0, text->size() - 3));
  const std::optional<std::uint64_t> hundredths = parse_count(text->substr(text->size() - 2));
  if (!whole || !hundredths || *whole > 100) return std::nullopt;
  const std::uint64_t sum = *whole * 100 + *hundredths;
  if (sum > 100 * 100) return std::nullopt;
  return static_cast<double>(sum) / 100;
}

std::optional<Stall> parse_stall(std::optional<std::string_view> line) {
  if (!line) return std::nullopt;
  const std::optional<double> avg10 = parse_percent(next_value(*line, "avg10="));
  const std::optional<double> avg60 = parse_percent(next_value(*line, "avg60="));
  const std::optional<double> avg300 = parse_percent(next_value(*line, "avg300="));
  const std::optional<std::string_view> total_text = next_value(*line, "total=");
  if (!avg10 || !avg60 || !avg300 || !total_text) return std::nullopt;
  const std::optional<std::uint64_t> total = parse_count(*total_text);
  constexpr auto kMax = std::numeric_limits<std::chrono::microseconds::rep>::max();
  if (!total || *total > static_cast<std::uint64_t>(kMax)) return std::nullopt;
  return Stall{*avg10, *avg60, *avg300,
               std::chrono::microseconds(static_cast<std::chrono::microseconds::rep>(*total))};
}

}  // namespace

Result<Pressure> parse_pressure(std::string_view text) {
  const std::optional<Stall> some = parse_stall(line_after(text, "some "));
  const std::optional<Stall> full = parse_stall(line_after(text, "full "));
  if (!some || !full) {
    return fail(Code::kUnavailable, fmt::format("nonsense for memory pressure: \"{}\"", text));
  }
  return Pressure{*some, *full};
}

}  // namespace pensieve::memory
