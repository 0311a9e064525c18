// What the worker does to itself before it reads a model file that somebody else wrote: an engine
// that is taken over by a crafted file can compute, and nothing else.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/protection.h"

namespace pensieve::sandbox {

struct Wanted {
  /// Files, or folders with all that is in them. What does not exist is left out.
  std::vector<std::string> readable;
  /// Folders in which files may be made, changed and removed.
  std::vector<std::string> writable_folders;
  /// The process with which this one has to die: its parent. Empty: with nobody.
  std::optional<pid_t> parent;
  /// Every descriptor above this one is closed.
  int last_descriptor = 3;
};

/// Confines this process for good; there is no way back. Each protection stands alone: where the
/// kernel refuses one, the others hold all the same, and the answer says which do. Linux; elsewhere
/// only core dumps are switched off.
///
/// Where the parent is dead already, this process ends at once by SIGKILL, as it would have a
/// moment later.
///
/// REQUIRES: one thread. Threads that exist already would not be confined; later ones are.
Protections confine_process(const Wanted& wanted);

}  // namespace pensieve::sandbox
