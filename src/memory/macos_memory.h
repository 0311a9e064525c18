// The machine's own figure on macOS. Untested: no machine of this kind was at hand; it compiles
// on Apple platforms only, and its arithmetic follows from the kernel's headers alone.
#pragma once

#if defined(__APPLE__)

#include <optional>

#include "base/error.h"
#include "memory/meter.h"

namespace pensieve::memory {

/// available = free + file-backed + purgeable pages; total = hw.memsize. All other inactive pages
/// are anonymous: giving them away means compressing or swapping.
class MacosMemory final : public Meter {
 public:
  /// Always sets a limit.
  Result<std::optional<Reading>> read() override;
};

}  // namespace pensieve::memory

#endif
