// Has the kernel's out-of-memory killer struck where our workers live?
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace pensieve::worker {

/// The number of kills in such a text; empty where it does not say.
std::optional<std::uint64_t> parse_oom_kills(std::string_view text);

/// The count of the memory group's own kills (cgroup v2 memory.events, v1 memory.oom_control), else
/// of the machine's (/proc/vmstat). Compared before and after, never read as an absolute figure.
class OomKillCounter {
 public:
  /// Finds the file for the group of this process; its workers are in the same one.
  OomKillCounter();
  explicit OomKillCounter(std::string path) : path_(std::move(path)) {}

  /// Empty where the counter cannot be read.
  std::optional<std::uint64_t> read() const;

 private:
  std::string path_;
};

}  // namespace pensieve::worker
