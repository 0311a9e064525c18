// A machine whose memory is a handful of numbers: other programs, our memory group with its limit,
// workers, and a kernel that kills when there is no more.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "memory/memory_source.h"

namespace pensieve::sim {

using WorkerId = std::uint64_t;

/// Page cache that can be dropped counts as available, as the kernel's MemAvailable has it, so it
/// does not appear here; what is dirty and has to be written first does.
class Machine {
 public:
  explicit Machine(Bytes total) : total_(total) {}

  /// A worker holds this much anonymous memory now. May end it, or another, at once.
  void set_worker(WorkerId id, Bytes anonymous);
  void remove_worker(WorkerId id) { workers_.erase(id); }

  /// Other programs, outside our group and in it.
  void set_others(Bytes bytes);
  void set_group_others(Bytes bytes);
  void set_dirty(Bytes bytes);
  /// The limit of our group; all there is means none.
  void set_group_limit(Bytes limit);

  Bytes total() const { return total_; }
  Bytes others() const { return others_; }
  Bytes group_others() const { return group_others_; }
  Bytes dirty() const { return dirty_; }
  Bytes group_limit() const { return group_limit_.count() == 0 ? total_ : group_limit_; }
  Bytes workers() const;
  /// What is not there for us: on the machine because others have it, in our group for that and
  /// for the limit. Where one of them grows, a promise may break.
  Bytes taken_from_machine() const;
  Bytes taken_from_group() const;

  /// What the kernel would say.
  memory::Reading reading() const;

  /// The kernel kills a worker. Called within the change that made it necessary.
  std::function<void(WorkerId id)> on_kill;
  std::uint64_t kills() const { return kills_; }

 private:
  Bytes used() const;
  Bytes group_used() const;
  void kill_while_out_of_memory();

  static constexpr Bytes kKernel = 300_MiB;
  static constexpr Bytes kGateway = 20_MiB;

  const Bytes total_;
  Bytes others_;
  Bytes group_others_;
  Bytes dirty_;
  Bytes group_limit_;  // Zero: none.
  std::map<WorkerId, Bytes> workers_;
  std::uint64_t kills_ = 0;
};

/// The machine's memory as the program reads it, with everything that can go wrong with reading.
class SimMemorySource final : public memory::MemorySource {
 public:
  enum class Fault : std::uint8_t { kNone, kLost, kNothing, kTooMuch, kLies, kStuck };

  SimMemorySource(const Machine& machine, const Clock& clock) : machine_(machine), clock_(clock) {}

  Result<memory::Reading> read() override;

  Fault fault = Fault::kNone;
  /// When the last reading was good and true.
  TimePoint good_at() const { return good_at_; }

 private:
  const Machine& machine_;
  const Clock& clock_;
  TimePoint good_at_{};
  memory::Reading last_;
};

}  // namespace pensieve::sim
