#include "worker/group_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include <fmt/core.h>

#include "memory/kernel_file.h"

namespace pensieve::worker {
namespace {

namespace fs = std::filesystem;

std::unexpected<Error> refused(std::string_view action, const std::string& path, int number) {
  return fail(
      number == ENOENT ? Code::kNotFound : Code::kUnavailable,
      fmt::format("cannot {} {}: {}", action, path, std::generic_category().message(number)));
}

class KernelGroupFiles final : public GroupFiles {
 public:
  Result<void> make_group(const std::string& folder) override {
    if (::mkdir(folder.c_str(), 0755) != 0) return refused("make the group", folder, errno);
    return {};
  }

  Result<void> remove_group(const std::string& folder) override {
    if (::rmdir(folder.c_str()) != 0) return refused("remove the group", folder, errno);
    return {};
  }

  /// One write() per setting: the kernel takes each as a whole command.
  Result<void> write(const std::string& path, std::string_view text) override {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return refused("open", path, errno);
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    const int number = errno;
    ::close(descriptor);
    if (written != static_cast<ssize_t>(text.size())) {
      return refused(fmt::format("write \"{}\" to", text), path, written < 0 ? number : EIO);
    }
    return {};
  }

  Result<std::string> read(const std::string& path) override {
    const Result<memory::KernelFile> file = memory::KernelFile::open(path);
    if (!file) return std::unexpected(file.error());
    return file->read_long();
  }

  Result<std::vector<std::string>> groups_below(const std::string& folder) override {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
         at.increment(error)) {
      std::error_code gone;  // Another gateway may remove its group while we look.
      if (at->is_directory(gone)) names.push_back(at->path().filename().string());
    }
    if (error) return refused("list", folder, error.value());
    return names;
  }
};

}  // namespace

std::unique_ptr<GroupFiles> kernel_group_files() {
  return std::make_unique<KernelGroupFiles>();
}

}  // namespace pensieve::worker
