// Protections that a process sets on itself with one call each.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/protection.h"

namespace pensieve::sandbox {

/// oom_score_adj 1000: the kernel's out-of-memory killer takes this process before any other.
Protection be_killed_first();

/// A core of a worker is gigabytes of model and prompts.
Protection dump_no_core();

Protection close_descriptors_above(int last);

/// no_new_privs, and of root's capabilities only those to open files whatever their owner.
Protection drop_privileges();

/// SIGKILL when the parent dies; at once where it is dead already (see sandbox.h).
Protection die_with(std::optional<pid_t> parent);

}  // namespace pensieve::sandbox
