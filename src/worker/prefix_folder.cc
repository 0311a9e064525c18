#include "worker/prefix_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include <fmt/core.h>

namespace pensieve::worker {
namespace {

using engine::Token;

constexpr std::string_view kTemporary = ".writing";

std::unexpected<Error> system_error(std::string_view doing, std::string_view what) {
  const int number = errno;
  return fail(number == ENOENT ? Code::kNotFound : Code::kUnavailable,
              fmt::format("{} {}: {}", doing, what, std::strerror(number)));
}

/// A descriptor that closes itself.
class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  explicit operator bool() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_;
};

std::int64_t used_at_ns(const struct stat& about) {
#if defined(__APPLE__)
  const timespec at = about.st_mtimespec;
#else
  const timespec at = about.st_mtim;
#endif
  return std::int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
}

/// Removes a half written file that nobody writes any more. A server that has made its file and
/// not locked it yet may lose it here; its rename fails then, and one prefix is not stored.
void sweep(int folder, const std::string& name) {
  const OpenFile file(::openat(folder, name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file && ::flock(file.fd(), LOCK_EX | LOCK_NB) == 0) ::unlinkat(folder, name.c_str(), 0);
}

/// Takes the whole room at once, so that a full disk is known before anything is written and other
/// servers count the file at its size. Where a file system cannot, writing itself will show.
bool take_room(int fd, Bytes bytes) {
#if defined(__linux__)
  if (::fallocate(fd, 0, 0, static_cast<off_t>(bytes.count())) == 0) return true;
  return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR;
#else
  return ::ftruncate(fd, static_cast<off_t>(bytes.count())) == 0;
#endif
}

}  // namespace

Result<void> make_prefix_folder(const std::string& path) {
  std::error_code error;
  const std::filesystem::path above = std::filesystem::path(path).parent_path();
  if (!above.empty()) std::filesystem::create_directories(above, error);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(Code::kUnavailable, fmt::format("making {}: {}", path, std::strerror(errno)));
  }
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) {
    return fail(Code::kUnavailable, fmt::format("looking at {}: {}", path, std::strerror(errno)));
  }
  if (!S_ISDIR(about.st_mode)) {
    return fail(Code::kUnavailable, fmt::format("{} is no folder", path));
  }
  if (about.st_uid != ::geteuid() || (about.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(Code::kUnavailable,
                fmt::format("{} belongs to somebody else, or others may write to it", path));
  }
  return {};
}

PrefixFolder::PrefixFolder(std::string path, std::string identity)
    : path_(std::move(path)), identity_(std::move(identity)), names_(identity_) {}

Result<PrefixFolder::Contents> PrefixFolder::list() const {
  const auto close = [](DIR* folder) { ::closedir(folder); };
  const std::unique_ptr<DIR, decltype(close)> folder(::opendir(path_.c_str()), close);
  if (!folder) return system_error("opening", path_);
  const int fd = ::dirfd(folder.get());
  Contents contents;
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (!is_prefix_name(name)) continue;
    if (contents.files.size() == kFilesMax) {
      contents.complete = false;
      break;
    }
    const bool temporary = name.find(kTemporary) != std::string::npos;
    if (temporary) sweep(fd, name);
    struct stat about {};
    if (::fstatat(fd, name.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(about.st_mode)) continue;
    const Bytes bytes(static_cast<std::uint64_t>(about.st_size));
    contents.files.push_back({name, bytes, used_at_ns(about), names_.ours(name), temporary});
    contents.bytes = Bytes(contents.bytes.count() + bytes.count());
  }
  std::sort(contents.files.begin(), contents.files.end(), [](const auto& a, const auto& b) {
    return std::pair(a.used_at_ns, std::string_view(a.name)) <
           std::pair(b.used_at_ns, std::string_view(b.name));
  });
  return contents;
}

Result<PrefixFolder::Contents> PrefixFolder::make_room(Bytes most, Bytes incoming) const {
  Result<Contents> contents = list();
  if (!contents) return contents;
  if (incoming > most) return fail(Code::kOutOfMemory, "it is larger than the whole budget");
  const Bytes room = saturating_sub(most, incoming);
  std::vector<File> left;
  for (File& file : contents->files) {
    if (contents->bytes <= room || file.temporary) {
      left.push_back(std::move(file));
      continue;
    }
    if (Result<void> removed = remove(file.name); !removed) {
      return std::unexpected(removed.error());
    }
    contents->bytes = saturating_sub(contents->bytes, file.bytes);
  }
  contents->files = std::move(left);
  if (contents->bytes > room) return fail(Code::kOutOfMemory, "others are writing; no room now");
  return contents;
}

Result<void> PrefixFolder::write(std::span<const Token> tokens, std::string_view state,
                                 const GoOn& go_on) const {
  static std::atomic<std::uint64_t> counter = 0;
  const std::string name = names_.name(tokens);
  const std::string temporary = fmt::format("{}{}-{}-{}", name, kTemporary, ::getpid(), ++counter);
  const OpenFile folder(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return system_error("opening", path_);
  const OpenFile file(::openat(folder.fd(), temporary.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return system_error("creating a file in", path_);
  ::flock(file.fd(), LOCK_EX | LOCK_NB);  // Nobody else has it; dead or alive is told by it.
  Result<void> written;
  if (!take_room(file.fd(), prefix_file_bytes(identity_, tokens.size(), Bytes(state.size())))) {
    written = system_error("taking room in", path_);
  } else {
    written = write_prefix_file(file.fd(), identity_, tokens, state, go_on);
  }
  if (written && ::renameat(folder.fd(), temporary.c_str(), folder.fd(), name.c_str()) != 0) {
    written = system_error("renaming a file in", path_);
  }
  if (!written) ::unlinkat(folder.fd(), temporary.c_str(), 0);
  return written;
}

/// Opens a file and reads its head, removes it where it is damaged, and goes on with `rest`.
template <class Rest>
Result<PrefixHead> PrefixFolder::read_with(const std::string& name, Bytes most, const GoOn& go_on,
                                           const Rest& rest) const {
  const OpenFile folder(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return system_error("opening", path_);
  const OpenFile file(
      ::openat(folder.fd(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) return system_error("opening", name);
  struct stat about {};
  if (::fstat(file.fd(), &about) != 0) return system_error("looking at", name);
  const Bytes bytes(static_cast<std::uint64_t>(about.st_size));
  if (bytes > most) return fail(Code::kOutOfMemory, fmt::format("{} is too large now", name));
  Result<PrefixHead> head = fail(Code::kInvalidArgument, "it is not a file of ours");
  if (S_ISREG(about.st_mode) && about.st_uid == ::geteuid()) {
    head = read_prefix_head(file.fd(), bytes, identity_, go_on);
  }
  if (head && names_.name(head->tokens) != name) {
    head = fail(Code::kInvalidArgument, "it holds other tokens than its name says");
  }
  if (head) {
    if (Result<void> more = rest(file.fd(), *head); !more) head = std::unexpected(more.error());
  }
  if (!head) {
    head.error().message = fmt::format("{}: {}", name, head.error().message);
    if (head.error().code == Code::kInvalidArgument) ::unlinkat(folder.fd(), name.c_str(), 0);
  }
  return head;
}

Result<PrefixHead> PrefixFolder::read_head(const std::string& name, const GoOn& go_on) const {
  return read_with(name, Bytes(UINT64_MAX), go_on,
                   [](int, const PrefixHead&) { return Result<void>(); });
}

Result<PrefixHead> PrefixFolder::read(const std::string& name, Bytes most, std::string& state,
                                      const GoOn& go_on) const {
  return read_with(name, most, go_on, [&](int fd, const PrefixHead& head) -> Result<void> {
    if (Result<void> read = read_prefix_state(fd, head, state, go_on); !read) return read;
    // Used now. On a disk that cannot be written to, its age does not matter either.
    ::futimens(fd, nullptr);
    return {};
  });
}

Result<void> PrefixFolder::remove(const std::string& name) const {
  if (::unlink((path_ + "/" + name).c_str()) == 0 || errno == ENOENT) return {};
  return fail(Code::kUnavailable, fmt::format("removing {}: {}", name, std::strerror(errno)));
}

}  // namespace pensieve::worker
