#include "base/heap.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace pensieve {

void return_large_blocks([[maybe_unused]] Bytes large) {
#if defined(__GLIBC__)
  const int bytes = static_cast<int>(large.count());
  ::mallopt(M_MMAP_THRESHOLD, bytes);
  ::mallopt(M_TRIM_THRESHOLD, bytes);
#endif
}

void trim_heap() {
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
}

}  // namespace pensieve
