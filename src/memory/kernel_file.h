// A small text file that the kernel makes up at each read (/proc, cgroup), kept open.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace pensieve::memory {

/// Room for one such text, meant for the stack. The longest that we read, a cgroup's memory.stat,
/// has 1 to 3 KiB on today's kernels.
using KernelText = std::array<char, 8192>;

/// Ownership: move-only; owns the descriptor. Thread-safety: one thread at a time.
class KernelFile {
 public:
  /// Errors: kNotFound where there is no such file; kUnavailable for anything else.
  static Result<KernelFile> open(std::string path);

  KernelFile(KernelFile&& other) noexcept;
  KernelFile& operator=(KernelFile&& other) noexcept;
  ~KernelFile();

  /// The whole text as it is now, in `buffer`. Errors: kNotFound where the kernel has the file but
  /// not what it is about; kUnavailable for anything else, also where the text does not fit.
  Result<std::string_view> read(KernelText& buffer) const;

  /// The same for a text of up to 4 MiB: a machine with many containers has long mount tables.
  Result<std::string> read_long() const;

  const std::string& path() const { return path_; }

 private:
  KernelFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}

  int descriptor_;  // -1 once moved from.
  std::string path_;
};

}  // namespace pensieve::memory
