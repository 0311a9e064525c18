#include "memory/proc_meminfo.h"

#include <cstdint>
#include <utility>

#include <fmt/core.h>

#include "memory/kernel_text.h"

namespace pensieve::memory {
namespace {

/// `   24684084 kB` as bytes. The kernel says kB and means 1024.
std::optional<Bytes> parse_kilobytes(std::string_view text) {
  const std::optional<std::uint64_t> count = parse_count(next_word(text));
  if (!count || text != " kB" || *count > UINT64_MAX / 1024) return std::nullopt;
  return Bytes(*count * 1024);
}

Result<Bytes> parse_field(std::string_view text, std::string_view key) {
  const std::optional<std::string_view> line = line_after(text, key);
  if (!line) return fail(Code::kUnavailable, fmt::format("meminfo has no line {}", key));
  const std::optional<Bytes> bytes = parse_kilobytes(*line);
  if (!bytes) {
    return fail(Code::kUnavailable, fmt::format("meminfo has nonsense in {}{}", key, *line));
  }
  return *bytes;
}

}  // namespace

Result<Meminfo> parse_meminfo(std::string_view text) {
  const Result<Bytes> total = parse_field(text, "MemTotal:");
  if (!total) return std::unexpected(total.error());
  const Result<Bytes> available = parse_field(text, "MemAvailable:");
  if (!available) return std::unexpected(available.error());
  if (*total == Bytes() || *available > *total) {
    return fail(Code::kUnavailable,
                fmt::format("meminfo is absurd: MemAvailable is {} of MemTotal {} bytes",
                            available->count(), total->count()));
  }
  return Meminfo{*available, *total};
}

Result<std::unique_ptr<ProcMeminfo>> ProcMeminfo::open(std::string path) {
  Result<KernelFile> file = KernelFile::open(std::move(path));
  if (!file) return std::unexpected(file.error());
  return std::unique_ptr<ProcMeminfo>(new ProcMeminfo(std::move(*file)));
}

Result<std::optional<Reading>> ProcMeminfo::read() {
  KernelText buffer;
  const Result<std::string_view> text = file_.read(buffer);
  if (!text) return std::unexpected(text.error());
  const Result<Meminfo> meminfo = parse_meminfo(*text);
  if (!meminfo) return std::unexpected(meminfo.error());
  return Reading{meminfo->available, meminfo->total, std::string(kMachineMeter)};
}

}  // namespace pensieve::memory
