// The machine's own figure: /proc/meminfo (Linux).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "memory/kernel_file.h"
#include "memory/meter.h"

namespace pensieve::memory {

struct Meminfo {
  Bytes available;  // MemAvailable: free, plus cache that the kernel would drop without swapping.
  Bytes total;      // MemTotal; above zero and at least `available`.
};

/// Errors: kUnavailable where a field is missing, cut short, not in kB, too large or absurd.
Result<Meminfo> parse_meminfo(std::string_view text);

class ProcMeminfo final : public Meter {
 public:
  static Result<std::unique_ptr<ProcMeminfo>> open(std::string path = "/proc/meminfo");

  /// Always sets a limit.
  Result<std::optional<Reading>> read() override;

 private:
  explicit ProcMeminfo(KernelFile file) : file_(std::move(file)) {}

  KernelFile file_;
};

}  // namespace pensieve::memory
