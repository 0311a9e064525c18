// The signals of this machine. Linux: PSI, swap-in and group events; macOS: memory/macos_signals.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "memory/cgroup_place.h"
#include "memory/kernel_file.h"
#include "memory/signal_source.h"

namespace pensieve::memory {

/// Stalls: memory.pressure of the v2 group that we are in (around the gateway's own leaf, if it has
/// made one), also where v1 controls memory. Where we are in no group but the root, or it shows
/// none, those of the machine, said to be the machine's. Swap-in: of our memory group where its
/// memory.stat tells, else pswpin of the machine. Events: of our memory group's own limits
/// (memory.events.local before memory.events, since the latter also counts what workers below run
/// into: their limits are no shortage of ours).
///
/// Where we are is looked up anew when the membership changes, and after each failed read.
class MachineSignals final : public SignalSource {
 public:
  /// Tests point them at a tree of their own.
  struct Paths {
    std::string membership = "/proc/self/cgroup";
    std::string mountinfo = "/proc/self/mountinfo";
    std::string machine_pressure = "/proc/pressure/memory";
    std::string vmstat = "/proc/vmstat";
  };

  explicit MachineSignals(Paths paths) : paths_(std::move(paths)) {}
  MachineSignals() : MachineSignals(Paths()) {}

  RawSignals read() override;

 private:
  /// A file of ours and whose it is. Without a file: known to be absent.
  struct Source {
    std::optional<KernelFile> file;
    Scope scope = Scope::kMachine;
    std::string where = "machine";
  };

  Result<std::string> membership();
  Result<void> locate(std::string_view membership);
  Result<void> open_pressure(const std::optional<CgroupPlace>& unified);
  Result<void> open_group(const std::optional<CgroupPlace>& place);
  Result<void> open_events(const CgroupFolder& group, CgroupVersion version);
  Result<std::optional<RawPressure>> read_pressure();
  Result<std::optional<RawSwapIn>> read_swap_in();
  Result<std::optional<RawSwapIn>> read_machine_swap_in();
  Result<std::optional<RawEvents>> read_events();

  Paths paths_;
  std::optional<KernelFile> membership_;
  std::optional<std::string> located_for_;  // The membership that all below belongs to.
  Source pressure_;
  Source stat_;         // Our group's memory.stat.
  Source events_;       // v2: memory.events.local or memory.events; v1: memory.failcnt.
  Source oom_control_;  // v1.
  CgroupVersion version_ = CgroupVersion::kV2;
  std::optional<KernelFile> vmstat_;
};

/// Of a flat file with lines `key count`. Empty where the key is missing or its count nonsense.
std::optional<std::uint64_t> keyed_count(std::string_view text, std::string_view key);

/// The signals of this platform; never fails: what cannot be read says so at each reading.
std::unique_ptr<SignalSource> open_machine_signals();

}  // namespace pensieve::memory
