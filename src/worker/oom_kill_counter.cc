#include "worker/oom_kill_counter.h"

#include <fstream>
#include <iterator>

#include "memory/cgroup_place.h"
#include "memory/kernel_text.h"

namespace pensieve::worker {
namespace {

constexpr const char* kMachineCounter = "/proc/vmstat";

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string counter_path() {
  const auto place =
      memory::locate_memory_cgroup(text_of("/proc/self/cgroup"), text_of("/proc/self/mountinfo"));
  if (!place || !*place) return kMachineCounter;
  const bool is_v1 = (*place)->version == memory::CgroupVersion::kV1;
  std::string path =
      (*place)->groups.front().folder + (is_v1 ? "/memory.oom_control" : "/memory.events");
  return OomKillCounter(path).read() ? path : kMachineCounter;
}

}  // namespace

OomKillCounter::OomKillCounter() : path_(counter_path()) {}

std::optional<std::uint64_t> parse_oom_kills(std::string_view text) {
  const std::optional<std::string_view> count = memory::line_after(text, "oom_kill ");
  return count ? memory::parse_count(*count) : std::nullopt;
}

std::optional<std::uint64_t> OomKillCounter::read() const {
  return parse_oom_kills(text_of(path_.c_str()));
}

}  // namespace pensieve::worker
