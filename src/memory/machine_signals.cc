#include "memory/machine_signals.h"

#include <array>
#include <span>
#include <utility>

#include <fmt/core.h>
#include <unistd.h>

#include "memory/kernel_text.h"

#if defined(__APPLE__)
#include "memory/macos_signals.h"
#endif

namespace pensieve::memory {
namespace {

/// The root of a whole hierarchy holds everybody, so that its figures are the machine's. The root
/// that a container sees is a group like others. Only a real root lacks cgroup.type (v2) and has
/// release_agent (v1): see cgroup-v2.rst and cgroup-v1/cgroups.rst of the kernel.
bool is_machine_root(const CgroupFolder& group, CgroupVersion version) {
  if (version == CgroupVersion::kV1) {
    return ::access((group.folder + "/release_agent").c_str(), F_OK) == 0;
  }
  return ::access((group.folder + "/cgroup.type").c_str(), F_OK) != 0;
}

/// The groups that are ours or around ours: without the leaf that only the gateway is in.
std::span<const CgroupFolder> own_groups(const CgroupPlace& place) {
  const std::span<const CgroupFolder> groups(place.groups);
  const std::string_view name = groups.front().name;
  const bool is_leaf = name.substr(name.rfind('/') + 1).starts_with(kGatewayLeafPrefix);
  return is_leaf && groups.size() > 1 ? groups.subspan(1) : groups;
}

/// Empty where there is no such file. Errors: where there is one that cannot be opened.
Result<std::optional<KernelFile>> open_if_there(std::string path) {
  Result<KernelFile> file = KernelFile::open(std::move(path));
  if (file) return std::move(*file);
  if (file.error().code == Code::kNotFound) return std::nullopt;
  return std::unexpected(std::move(file.error()));
}

std::unexpected<Error> missing(const KernelFile& file, std::string_view key) {
  return fail(Code::kUnavailable, fmt::format("{} has no proper line \"{}\"", file.path(), key));
}

}  // namespace

std::optional<std::uint64_t> keyed_count(std::string_view text, std::string_view key) {
  while (const std::optional<std::string_view> line = next_line(text)) {
    if (line->starts_with(key) && line->substr(key.size()).starts_with(' ')) {
      return parse_count(line->substr(key.size() + 1));
    }
  }
  return std::nullopt;
}

RawSignals MachineSignals::read() {
  RawSignals signals;
  Result<void> located;
  if (const Result<std::string> now = membership(); !now) {
    located = std::unexpected(now.error());
  } else if (located_for_ != *now) {
    located = locate(*now);
  }
  if (!located) {
    located_for_.reset();
    signals.pressure = std::unexpected(located.error());
    signals.swap_in = std::unexpected(located.error());
    signals.events = std::unexpected(located.error());
    return signals;
  }
  signals.pressure = read_pressure();
  signals.swap_in = read_swap_in();
  signals.events = read_events();
  if (!signals.pressure || !signals.swap_in || !signals.events) located_for_.reset();
  return signals;
}

/// "" where the kernel has no cgroups.
Result<std::string> MachineSignals::membership() {
  if (!membership_) {
    Result<std::optional<KernelFile>> file = open_if_there(paths_.membership);
    if (!file) return std::unexpected(file.error());
    if (!*file) return std::string();
    membership_ = std::move(*file);
  }
  KernelText buffer;
  const Result<std::string_view> text = membership_->read(buffer);
  if (!text) return std::unexpected(text.error());
  return std::string(*text);
}

Result<void> MachineSignals::locate(std::string_view membership) {
  pressure_ = {};
  stat_ = {};
  events_ = {};
  oom_control_ = {};
  std::optional<CgroupPlace> unified;
  std::optional<CgroupPlace> memory;
  if (!membership.empty()) {
    const Result<KernelFile> mountinfo = KernelFile::open(paths_.mountinfo);
    if (!mountinfo) return std::unexpected(mountinfo.error());
    const Result<std::string> mounts = mountinfo->read_long();
    if (!mounts) return std::unexpected(mounts.error());
    // A hierarchy that is mounted nowhere shows us no group; the limits, where that would matter,
    // are CgroupMemory's to insist on.
    if (auto place = locate_unified_cgroup(membership, *mounts)) unified = std::move(*place);
    if (auto place = locate_memory_cgroup(membership, *mounts)) memory = std::move(*place);
  }
  if (const Result<void> opened = open_pressure(unified); !opened) return opened;
  if (const Result<void> opened = open_group(memory); !opened) return opened;
  if (!vmstat_) {
    Result<std::optional<KernelFile>> vmstat = open_if_there(paths_.vmstat);
    if (!vmstat) return std::unexpected(vmstat.error());
    vmstat_ = std::move(*vmstat);
  }
  located_for_ = std::string(membership);
  return {};
}

Result<void> MachineSignals::open_pressure(const std::optional<CgroupPlace>& unified) {
  if (unified && !is_machine_root(own_groups(*unified).front(), CgroupVersion::kV2)) {
    const CgroupFolder& group = own_groups(*unified).front();
    Result<std::optional<KernelFile>> file = open_if_there(group.folder + "/memory.pressure");
    if (!file) return std::unexpected(file.error());
    if (*file) {
      pressure_ = {std::move(*file), Scope::kOwn, "cgroup " + group.name};
      return {};
    }
  }
  Result<std::optional<KernelFile>> file = open_if_there(paths_.machine_pressure);
  if (!file) return std::unexpected(file.error());
  pressure_.file = std::move(*file);
  return {};
}

/// The kernel charges us to the innermost group for which the controller is switched on: the first
/// that has the file.
Result<void> MachineSignals::open_group(const std::optional<CgroupPlace>& place) {
  if (!place) return {};
  version_ = place->version;
  for (const CgroupFolder& group : own_groups(*place)) {
    if (is_machine_root(group, place->version)) return {};
    Result<std::optional<KernelFile>> stat = open_if_there(group.folder + "/memory.stat");
    if (!stat) return std::unexpected(stat.error());
    if (!*stat) continue;
    stat_ = {std::move(*stat), Scope::kOwn, "cgroup " + group.name};
    return open_events(group, place->version);
  }
  return {};
}

Result<void> MachineSignals::open_events(const CgroupFolder& group, CgroupVersion version) {
  events_.where = "cgroup " + group.name;
  if (version == CgroupVersion::kV1) {
    Result<std::optional<KernelFile>> control = open_if_there(group.folder + "/memory.oom_control");
    if (!control) return std::unexpected(control.error());
    oom_control_.file = std::move(*control);
  }
  constexpr std::array<std::string_view, 2> kV2Files{"memory.events.local", "memory.events"};
  constexpr std::array<std::string_view, 1> kV1Files{"memory.failcnt"};
  const auto open_first = [&](const auto& names) -> Result<void> {
    for (const std::string_view name : names) {
      Result<std::optional<KernelFile>> file =
          open_if_there(fmt::format("{}/{}", group.folder, name));
      if (!file) return std::unexpected(file.error());
      events_.file = std::move(*file);
      if (events_.file) break;
    }
    return {};
  };
  return version == CgroupVersion::kV1 ? open_first(kV1Files) : open_first(kV2Files);
}

Result<std::optional<RawPressure>> MachineSignals::read_pressure() {
  if (!pressure_.file) return std::nullopt;
  KernelText buffer;
  const Result<std::string_view> text = pressure_.file->read(buffer);
  if (!text) {
    // A kernel with PSI compiled in and switched off has the file, and says so when it is read.
    if (text.error().code == Code::kNotFound) return std::nullopt;
    return std::unexpected(text.error());
  }
  const Result<Pressure> pressure = parse_pressure(*text);
  if (!pressure) {
    return fail(Code::kUnavailable,
                fmt::format("{}: {}", pressure_.file->path(), pressure.error().message));
  }
  return RawPressure{*pressure, pressure_.scope, pressure_.where};
}

Result<std::optional<RawSwapIn>> MachineSignals::read_swap_in() {
  if (!stat_.file) return read_machine_swap_in();
  KernelText buffer;
  const Result<std::string_view> text = stat_.file->read(buffer);
  if (!text) return std::unexpected(text.error());
  // v1 sums over the groups below only in the fields with `total_`. Refaults of anonymous pages are
  // swap-ins by another name, on kernels that do not count those per group.
  const std::string_view total = version_ == CgroupVersion::kV1 ? "total_" : "";
  for (const std::string_view key : {"pswpin", "workingset_refault_anon"}) {
    if (const auto pages = keyed_count(*text, fmt::format("{}{}", total, key))) {
      return RawSwapIn{*pages, Scope::kOwn, stat_.where};
    }
  }
  return read_machine_swap_in();
}

Result<std::optional<RawSwapIn>> MachineSignals::read_machine_swap_in() {
  if (!vmstat_) return std::nullopt;
  KernelText buffer;
  const Result<std::string_view> text = vmstat_->read(buffer);
  if (!text) return std::unexpected(text.error());
  // A kernel built without swap has no such line, and swaps nothing.
  if (!line_after(*text, "pswpin")) return std::nullopt;
  const std::optional<std::uint64_t> pages = keyed_count(*text, "pswpin");
  if (!pages) return missing(*vmstat_, "pswpin");
  return RawSwapIn{*pages, Scope::kMachine, "machine"};
}

Result<std::optional<RawEvents>> MachineSignals::read_events() {
  if (!events_.file) return std::nullopt;
  KernelText buffer;
  const Result<std::string_view> text = events_.file->read(buffer);
  if (!text) return std::unexpected(text.error());
  RawEvents events;
  events.where = events_.where;
  if (version_ == CgroupVersion::kV1) {
    std::string_view rest = *text;
    const std::optional<std::string_view> line = next_line(rest);
    const std::optional<std::uint64_t> failures = line ? parse_count(*line) : std::nullopt;
    if (!failures) return missing(*events_.file, "COUNT");
    events.max = *failures;
    if (!oom_control_.file) return events;
    const Result<std::string_view> control = oom_control_.file->read(buffer);
    if (!control) return std::unexpected(control.error());
    const std::optional<std::uint64_t> under_oom = keyed_count(*control, "under_oom");
    if (!under_oom) return missing(*oom_control_.file, "under_oom");
    events.waits_out_of_memory = *under_oom != 0;
    // Kernels before 4.17 do not count kills per group.
    if (const auto kills = keyed_count(*control, "oom_kill")) events.oom_kill = *kills;
    return events;
  }
  struct Field {
    std::string_view key;
    std::uint64_t RawEvents::*count;
  };
  constexpr Field kFields[] = {{"low", &RawEvents::low},
                               {"high", &RawEvents::high},
                               {"max", &RawEvents::max},
                               {"oom", &RawEvents::oom},
                               {"oom_kill", &RawEvents::oom_kill}};
  for (const Field& field : kFields) {
    const std::optional<std::uint64_t> count = keyed_count(*text, field.key);
    if (!count) return missing(*events_.file, field.key);
    events.*field.count = *count;
  }
  return events;
}

std::unique_ptr<SignalSource> open_machine_signals() {
#if defined(__APPLE__)
  return std::make_unique<MacosSignals>();
#else
  return std::make_unique<MachineSignals>();
#endif
}

}  // namespace pensieve::memory
