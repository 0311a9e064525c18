#include "engine/core_times.h"

#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <string>

namespace pensieve::engine {
namespace {

constexpr std::string_view kCore = "cpu";

/// Takes the number that `text` begins with, after spaces, off it.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

/// Processor time of all threads of this process.
std::optional<Duration> own_time() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return std::nullopt;
  const auto duration = [](const timeval& time) {
    return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
  };
  return duration(usage.ru_utime) + duration(usage.ru_stime);
}

/// Idle time of the cores that this thread may run on.
std::optional<Duration> idle_time() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return std::nullopt;
  const long ticks_per_second = sysconf(_SC_CLK_TCK);
  if (ticks_per_second <= 0) return std::nullopt;
  std::ifstream file("/proc/stat");
  std::string stat;
  for (std::string line; std::getline(file, line) && line.starts_with(kCore);) stat += line + '\n';
  return idle_in(stat, Duration(std::chrono::seconds(1)) / ticks_per_second,
                 [&allowed](unsigned core) { return CPU_ISSET(core, &allowed); });
#else
  return std::nullopt;
#endif
}

}  // namespace

std::optional<Duration> idle_in(std::string_view stat, Duration tick,
                                const std::function<bool(unsigned)>& counts) {
  std::optional<Duration> idle;
  while (stat.starts_with(kCore)) {
    const std::size_t end = std::min(stat.find('\n'), stat.size());
    std::string_view line = stat.substr(kCore.size(), end - kCore.size());
    stat.remove_prefix(std::min(end + 1, stat.size()));
    if (line.starts_with(' ')) continue;  // All cores together.
    const std::optional<std::uint64_t> core = take_number(line);
    if (!core) return std::nullopt;
    if (!counts(static_cast<unsigned>(*core))) continue;
    std::array<std::uint64_t, 5> ticks{};  // user, nice, system, idle, iowait
    for (std::uint64_t& field : ticks) {
      const std::optional<std::uint64_t> number = take_number(line);
      if (!number) return std::nullopt;
      field = *number;
    }
    idle = idle.value_or(Duration(0)) + tick * static_cast<Duration::rep>(ticks[3] + ticks[4]);
  }
  return idle;
}

std::optional<CoreTimes> read_core_times(const Clock& clock) {
  const TimePoint now = clock.now();
  const std::optional<Duration> idle = idle_time();
  const std::optional<Duration> own = own_time();
  if (!idle || !own) return std::nullopt;
  return CoreTimes{now, *idle, *own};
}

}  // namespace pensieve::engine
