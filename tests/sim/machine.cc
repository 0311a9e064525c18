#include "sim/machine.h"

#include <algorithm>

namespace pensieve::sim {

void Machine::set_worker(WorkerId id, Bytes anonymous) {
  workers_[id] = anonymous;
  kill_while_out_of_memory();
}

void Machine::set_others(Bytes bytes) {
  others_ = bytes;
  kill_while_out_of_memory();
}

void Machine::set_group_others(Bytes bytes) {
  group_others_ = bytes;
  kill_while_out_of_memory();
}

void Machine::set_dirty(Bytes bytes) {
  dirty_ = bytes;
  kill_while_out_of_memory();
}

void Machine::set_group_limit(Bytes limit) {
  group_limit_ = limit;
  kill_while_out_of_memory();
}

Bytes Machine::workers() const {
  std::uint64_t sum = 0;
  for (const auto& [id, anonymous] : workers_) sum += anonymous.count();
  return Bytes(sum);
}

Bytes Machine::taken_from_machine() const {
  return Bytes(others_.count() + group_others_.count() + dirty_.count());
}

Bytes Machine::taken_from_group() const {
  return Bytes(group_others_.count() + saturating_sub(total_, group_limit()).count());
}

Bytes Machine::used() const {
  return Bytes(kKernel.count() + kGateway.count() + others_.count() + group_others_.count() +
               dirty_.count() + workers().count());
}

Bytes Machine::group_used() const {
  return Bytes(kGateway.count() + group_others_.count() + workers().count());
}

memory::Reading Machine::reading() const {
  const Bytes machine = saturating_sub(total_, used());
  const Bytes group = saturating_sub(group_limit(), group_used());
  if (group < machine) return {group, group_limit(), "cgroup /sim"};
  return {machine, total_, "machine"};
}

void Machine::kill_while_out_of_memory() {
  while (used() > total_ || group_used() > group_limit()) {
    ++kills_;
    if (!workers_.empty()) {
      // Their oom_score_adj of 1000 makes them the first; the larger before the smaller.
      const auto victim = std::max_element(
          workers_.begin(), workers_.end(),
          [](const auto& one, const auto& other) { return one.second < other.second; });
      const WorkerId id = victim->first;
      workers_.erase(victim);
      if (on_kill) on_kill(id);
    } else if (group_used() > group_limit() && group_others_ > Bytes()) {
      group_others_ = Bytes();
    } else if (others_ > Bytes()) {
      others_ = Bytes();
    } else {
      dirty_ = Bytes();
      group_others_ = Bytes();
      return;  // A group smaller than the gateway alone is not simulated.
    }
  }
}

Result<memory::Reading> SimMemorySource::read() {
  memory::Reading reading = machine_.reading();
  switch (fault) {
    case Fault::kNone:
      good_at_ = clock_.now();
      last_ = reading;
      return reading;
    case Fault::kLost:
      return fail(Code::kUnavailable, "simulated: the file cannot be read");
    case Fault::kNothing:
      return memory::Reading{Bytes(), Bytes(), "machine"};
    case Fault::kTooMuch:
      return memory::Reading{Bytes(reading.total.count() + 1), reading.total, "machine"};
    case Fault::kStuck:
      good_at_ = clock_.now();
      last_.available = std::min(last_.available, reading.available);
      return last_;
    case Fault::kLies:
      good_at_ = clock_.now();
      return memory::Reading{reading.total, reading.total, "machine"};
  }
  return fail(Code::kInternal, "no such fault");
}

}  // namespace pensieve::sim
