// The process's heap. glibc's thresholds grow with what was freed once, up to 64 MiB that stay
// resident in each thread's arena, whatever malloc_trim() does.
#pragma once

#include "base/bytes.h"

namespace pensieve {

/// From now on blocks of `large` and more go back to the kernel when they are freed, and no arena
/// keeps more than that at its end. Nothing on systems whose heap has no such thresholds. To be
/// called once, before there are threads. REQUIRES: large < 2 GiB.
void return_large_blocks(Bytes large);

/// Gives what is free in any arena back to the kernel, but for the ends of threads' arenas.
void trim_heap();

}  // namespace pensieve
