#include "cli/table.h"

#include <algorithm>

#include <fmt/core.h>

#include "base/error.h"

namespace pensieve::cli {
namespace {

std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string aligned(const std::vector<std::vector<std::string>>& rows,
                    const std::vector<bool>& right) {
  std::vector<std::size_t> widths(right.size());
  for (const auto& row : rows) {
    PENSIEVE_CHECK(row.size() == right.size());
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - width(row[i]), ' ');
      line += (i > 0 ? "  " : "") + (right[i] ? gap + row[i] : row[i] + gap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string size_text(std::optional<std::uint64_t> bytes) {
  if (!bytes) return "?";
  const double count = static_cast<double>(*bytes);
  if (*bytes >= 1ULL << 30) return fmt::format("{:.2f} GB", count / static_cast<double>(1 << 30));
  if (*bytes >= 1ULL << 20) return fmt::format("{:.1f} MB", count / static_cast<double>(1 << 20));
  if (*bytes >= 1ULL << 10) return fmt::format("{:.1f} KB", count / 1024);
  return fmt::format("{} B", *bytes);
}

std::string age_text(std::optional<std::uint64_t> seconds) {
  if (!seconds) return "?";
  const std::uint64_t minutes = *seconds / 60;
  const std::uint64_t hours = minutes / 60;
  if (minutes == 0) return fmt::format("{} s", *seconds);
  if (hours == 0) return fmt::format("{} min", minutes);
  if (hours < 24) return fmt::format("{} h {} min", hours, minutes % 60);
  return fmt::format("{} d {} h", hours / 24, hours % 24);
}

}  // namespace pensieve::cli
