#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/error.h"

namespace pensieve::worker {

/// A folder for model files and markers. Removed with the object.
class TempFolder {
 public:
  TempFolder() : path_(testing::TempDir() + "pensieve-test-XXXXXX") {
    PENSIEVE_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TempFolder() {
    std::error_code ignored;  // A folder left behind is not worth a failed test.
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  /// Writes a file, with the folders above it, and returns its path.
  std::string write(std::string_view name, std::string_view text) const {
    const std::string path = at(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream stream(path, std::ios::trunc);
    stream << text;
    PENSIEVE_CHECK(stream.flush().good());
    return path;
  }
  std::string at(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace pensieve::worker
