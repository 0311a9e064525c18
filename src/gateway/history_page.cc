#include "gateway/history_page.h"

#include <chrono>
#include <vector>

#include <fmt/format.h>

namespace pensieve::gateway {
namespace {

using Entries = std::vector<std::optional<memory::HistoryEntry>>;

/// Written by hand: a JSON document of 18,000 values would take a megabyte for a moment, and the
/// gateway has to stay small.
template <class Figure>
void add_column(std::string& body, std::string_view name, const Entries& entries,
                const Figure& figure) {
  fmt::format_to(std::back_inserter(body), ",\"{}\":[", name);
  bool first = true;
  for (const auto& entry : entries) {
    if (!first) body += ',';
    first = false;
    if (entry) {
      fmt::format_to(std::back_inserter(body), "{}", figure(*entry));
    } else {
      body += "null";
    }
  }
  body += ']';
}

std::string body_of(std::string_view window, const memory::HistoryRing& ring) {
  const Entries entries = ring.entries();
  std::string body = fmt::format(
      R"({{"window":"{}","step_seconds":{},"entries":{},"levels":["Safe","Caution","Warning",)"
      R"("Critical","Emergency"])",
      window, std::chrono::duration_cast<std::chrono::seconds>(ring.step()).count(),
      entries.size());
  using memory::HistoryEntry;
  add_column(body, "available_bytes_min", entries,
             [](const HistoryEntry& entry) { return entry.available_min.count(); });
  add_column(body, "available_bytes_avg", entries,
             [](const HistoryEntry& entry) { return entry.available_avg.count(); });
  add_column(body, "available_bytes_max", entries,
             [](const HistoryEntry& entry) { return entry.available_max.count(); });
  add_column(body, "held_bytes", entries,
             [](const HistoryEntry& entry) { return entry.held.count(); });
  add_column(body, "level", entries,
             [](const HistoryEntry& entry) { return static_cast<unsigned>(entry.level); });
  body += '}';
  return body;
}

}  // namespace

std::optional<std::string> history_body(const memory::History& history, std::string_view query) {
  if (query.empty() || query == "window=hour") return body_of("hour", history.hour());
  if (query == "window=day") return body_of("day", history.day());
  return std::nullopt;
}

}  // namespace pensieve::gateway
