#include "memory/cgroup_group.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <fmt/core.h>

#include "memory/kernel_text.h"

namespace pensieve::memory {
namespace {

// v1 has no word for "no limit": it shows LONG_MAX, rounded down to the page size of the machine
// or, on old kernels, not rounded. No machine has 4 EiB.
constexpr std::uint64_t kV1UnlimitedFromBytes = 1ULL << 62;

std::optional<std::uint64_t> parse_count_line(std::string_view text) {
  const std::optional<std::string_view> line = next_line(text);
  return line ? parse_count(*line) : std::nullopt;
}

std::optional<Bytes> stat_field(std::string_view text, std::string_view key) {
  const std::optional<std::string_view> line = line_after(text, key);
  const std::optional<std::uint64_t> count = line ? parse_count(*line) : std::nullopt;
  if (!count) return std::nullopt;
  return Bytes(*count);
}

}  // namespace

Result<std::optional<Bytes>> parse_cgroup_limit(std::string_view text) {
  if (text == "max\n") return std::nullopt;
  const std::optional<std::uint64_t> count = parse_count_line(text);
  if (!count) return fail(Code::kUnavailable, fmt::format("nonsense for a limit: \"{}\"", text));
  if (*count >= kV1UnlimitedFromBytes) return std::nullopt;
  return Bytes(*count);
}

Result<Bytes> parse_cgroup_file_cache(std::string_view text, CgroupVersion version) {
  // v1 has fields without `total_` as well, which leave out the groups below this one.
  const bool v1 = version == CgroupVersion::kV1;
  const std::optional<Bytes> inactive =
      stat_field(text, v1 ? "total_inactive_file " : "inactive_file ");
  const std::optional<Bytes> active = stat_field(text, v1 ? "total_active_file " : "active_file ");
  if (inactive && active) {
    if (const std::optional<Bytes> sum = checked_add(*inactive, *active)) return *sum;
  }
  return fail(Code::kUnavailable, "the figures of the file cache are missing or nonsense");
}

CgroupGroup::CgroupGroup(CgroupFolder group, CgroupVersion version)
    : group_(std::move(group)), version_(version) {}

Result<std::optional<CgroupGroup::Headroom>> CgroupGroup::read() {
  const Result<std::optional<Bytes>> limit = read_limit();
  if (!limit) return std::unexpected(limit.error());
  if (!*limit) return std::nullopt;

  KernelText buffer;
  const bool v1 = version_ == CgroupVersion::kV1;
  const Result<std::string_view> usage_text =
      read_file(usage_, v1 ? "memory.usage_in_bytes" : "memory.current", buffer);
  if (!usage_text) return std::unexpected(usage_text.error());
  const std::optional<std::uint64_t> usage = parse_count_line(*usage_text);
  if (!usage) {
    return fail(Code::kUnavailable,
                fmt::format("{}: nonsense for a use: \"{}\"", usage_->path(), *usage_text));
  }
  const Result<std::string_view> stat_text = read_file(stat_, "memory.stat", buffer);
  if (!stat_text) return std::unexpected(stat_text.error());
  const Result<Bytes> file_cache = parse_cgroup_file_cache(*stat_text, version_);
  if (!file_cache) {
    return fail(Code::kUnavailable,
                fmt::format("{}: {}", stat_->path(), file_cache.error().message));
  }
  // The kernel updates the figures of memory.stat later than the use, so that they may exceed it.
  const Bytes needed = saturating_sub(Bytes(*usage), *file_cache);
  return Headroom{saturating_sub(**limit, needed), **limit};
}

Result<std::optional<Bytes>> CgroupGroup::read_limit() {
  if (version_ == CgroupVersion::kV1) return read_limit_file(max_, "memory.limit_in_bytes");
  const Result<std::optional<Bytes>> max = read_limit_file(max_, "memory.max");
  if (!max) return max;
  // Above memory.high the kernel kills nobody, but slows everybody down to a crawl.
  const Result<std::optional<Bytes>> high = read_limit_file(high_, "memory.high");
  if (!high || !*high) return high ? max : high;
  return *max ? std::min(**max, **high) : **high;
}

Result<std::optional<Bytes>> CgroupGroup::read_limit_file(std::optional<KernelFile>& file,
                                                          std::string_view name) {
  KernelText buffer;
  const Result<std::string_view> text = read_file(file, name, buffer);
  if (!text) {
    // A v2 group has limit files exactly where the controller may limit it. A file that was there
    // when we opened it and is gone now is an error all the same.
    const bool absent = !file && text.error().code == Code::kNotFound;
    if (absent && version_ == CgroupVersion::kV2) return std::nullopt;
    return std::unexpected(text.error());
  }
  Result<std::optional<Bytes>> limit = parse_cgroup_limit(*text);
  if (limit) return limit;
  return fail(Code::kUnavailable, fmt::format("{}: {}", file->path(), limit.error().message));
}

Result<std::string_view> CgroupGroup::read_file(std::optional<KernelFile>& file,
                                                std::string_view name, KernelText& buffer) {
  if (!file) {
    Result<KernelFile> opened = KernelFile::open(fmt::format("{}/{}", group_.folder, name));
    if (!opened) return std::unexpected(opened.error());
    file = std::move(*opened);
  }
  return file->read(buffer);
}

}  // namespace pensieve::memory
