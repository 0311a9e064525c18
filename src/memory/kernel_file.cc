#include "memory/kernel_file.h"

#include <cerrno>
#include <cstddef>
#include <span>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

namespace pensieve::memory {
namespace {

constexpr std::size_t kLongTextBytesMax = 4 << 20;

std::unexpected<Error> failed(Code code, std::string_view action, const std::string& path,
                              int error_number) {
  return fail(code, fmt::format("cannot {} {}: {}", action, path,
                                std::generic_category().message(error_number)));
}

/// Fills `room` from `offset` on; fewer bytes only at the end of the file.
Result<std::size_t> read_at(int descriptor, const std::string& path, std::span<char> room,
                            std::size_t offset) {
  std::size_t done = 0;
  while (done < room.size()) {
    const ssize_t count = ::pread(descriptor, room.data() + done, room.size() - done,
                                  static_cast<off_t>(offset + done));
    if (count == 0) break;
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (errno != EINTR) {
      // A feature that is compiled in and switched off has a file that says so when read (PSI).
      const Code code = errno == EOPNOTSUPP ? Code::kNotFound : Code::kUnavailable;
      return failed(code, "read", path, errno);
    }
  }
  return done;
}

}  // namespace

Result<KernelFile> KernelFile::open(std::string path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const Code code = errno == ENOENT ? Code::kNotFound : Code::kUnavailable;
    return failed(code, "open", path, errno);
  }
  return KernelFile(descriptor, std::move(path));
}

KernelFile::KernelFile(KernelFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

KernelFile& KernelFile::operator=(KernelFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);  // `other` closes what was ours.
  std::swap(path_, other.path_);
  return *this;
}

KernelFile::~KernelFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<std::string_view> KernelFile::read(KernelText& buffer) const {
  const Result<std::size_t> size = read_at(descriptor_, path_, buffer, 0);
  if (!size) return std::unexpected(size.error());
  if (*size == buffer.size()) {
    return fail(Code::kUnavailable, fmt::format("{} is longer than {} bytes", path_, *size - 1));
  }
  return std::string_view(buffer.data(), *size);
}

Result<std::string> KernelFile::read_long() const {
  std::string text;
  KernelText part;
  while (text.size() < kLongTextBytesMax) {
    const Result<std::size_t> size = read_at(descriptor_, path_, part, text.size());
    if (!size) return std::unexpected(size.error());
    text.append(part.data(), *size);
    if (*size < part.size()) return text;
  }
  return fail(Code::kUnavailable, fmt::format("{} is longer than {} bytes", path_, text.size()));
}

}  // namespace pensieve::memory
