// Landlock: which files this process may open from now on (Linux).
#pragma once

#include <string>
#include <vector>

#include "base/protection.h"

namespace pensieve::sandbox {

struct FileAccess {
  Protection reading;
  Protection writing;
  bool denies_tcp = false;  // bind() and connect() as well: kernels since 6.7.
};

/// From here on this process opens for reading `readable`, what the C and C++ libraries and memory
/// readings need (/proc, /sys, shared libraries, time zones, random numbers), and for writing what
/// is in `writable_folders`. Descriptors that are open already stay usable. Tried out afterwards.
///
/// REQUIRES: no_new_privs, and one thread. Holds one descriptor per rule open for good.
FileAccess restrict_files(const std::vector<std::string>& readable,
                          const std::vector<std::string>& writable_folders);

}  // namespace pensieve::sandbox
