// Seccomp: which system calls this process may make from now on (Linux).
#pragma once

#include "base/protection.h"

namespace pensieve::sandbox {

struct CallFilter {
  Protection network;   // No sockets.
  Protection programs;  // No exec, no new processes, no hand on other processes.
};

/// A list of what is denied, not of what is allowed: engines, C libraries and GPU drivers change
/// the calls that they make from version to version, and a list of allowed ones would end workers
/// after an update. What is denied answers EPERM (a library that only probes goes on without) and
/// is tried out afterwards where that does no harm. In sanitizer builds processes may be made and
/// traced: the leak checker is one.
///
/// REQUIRES: one thread.
CallFilter filter_calls();

}  // namespace pensieve::sandbox
