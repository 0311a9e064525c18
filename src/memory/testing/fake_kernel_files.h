#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/error.h"

namespace pensieve::memory {

/// A temporary folder of files that stand for those of the kernel. Removed with the object.
class FakeKernelFiles {
 public:
  FakeKernelFiles() : root_(testing::TempDir() + "pensieve-kernel-files-XXXXXX") {
    PENSIEVE_CHECK(::mkdtemp(root_.data()) != nullptr);
  }
  ~FakeKernelFiles() {
    std::error_code ignored;  // A folder left behind is not worth a failed test.
    std::filesystem::remove_all(root_, ignored);
  }
  FakeKernelFiles(const FakeKernelFiles&) = delete;
  FakeKernelFiles& operator=(const FakeKernelFiles&) = delete;

  /// Writes a file in place (who has it open sees the new text), with the folders above it.
  void write(std::string_view path, std::string_view text) const {
    const std::filesystem::path file(at(path));
    std::filesystem::create_directories(file.parent_path());
    std::ofstream stream(file, std::ios::trunc);
    stream << text;
    PENSIEVE_CHECK(stream.flush().good());
  }
  void remove(std::string_view path) const { std::filesystem::remove_all(at(path)); }

  std::string at(std::string_view path) const { return root_ + "/" + std::string(path); }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

}  // namespace pensieve::memory
