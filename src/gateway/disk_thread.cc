#include "gateway/disk_thread.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/timer.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;

/// What both threads see of one piece of work. `done` belongs to the io thread.
struct Piece {
  explicit Piece(const asio::any_io_executor& executor) : wake(executor, TimePoint::max()) {}
  Timer wake;
  Result<void> result;
  bool done = false;
};

std::unexpected<Error> system_failure(const std::string& path) {
  return fail(Code::kUnavailable, fmt::format("{}: {}", path, std::strerror(errno)));
}

/// Closes on every way out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }

 private:
  const int fd_;
};

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

asio::awaitable<Result<void>> DiskThread::run(std::function<Result<void>()> work) {
  const auto piece = std::make_shared<Piece>(executor_);
  auto guard = asio::make_work_guard(executor_);
  // Moved along, so that it ends on the io thread: its timer must not end on the other.
  asio::post(thread_, [piece = std::shared_ptr<Piece>(piece), work = std::move(work),
                       guard = std::move(guard)]() mutable {
    try {
      piece->result = work();
    } catch (const std::exception& error) {  // Out of this thread it would end the gateway.
      piece->result = fail(Code::kInternal, error.what());
    }
    work = nullptr;
    const asio::any_io_executor executor = guard.get_executor();
    asio::post(executor, [piece = std::move(piece), guard = std::move(guard)] {
      piece->done = true;
      piece->wake.cancel();
    });
  });
  while (!piece->done) co_await piece->wake.async_wait(asio::as_tuple(asio::use_awaitable));
  co_return std::move(piece->result);
}

Result<void> write_durably(const std::string& path, std::string_view bytes) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
  const Descriptor file(::open(path.c_str(), kFlags, S_IRUSR | S_IWUSR));
  if (file.get() < 0 || !write_all(file.get(), bytes) || ::fsync(file.get()) != 0) {
    return system_failure(path);
  }
  return {};
}

Result<void> sync_path(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 || ::fsync(file.get()) != 0) return system_failure(path);
  return {};
}

Result<void> replace_durably(const std::string& path, std::string_view bytes) {
  const std::string temporary = path + ".new";
  if (auto written = write_durably(temporary, bytes); !written) return written;
  if (::rename(temporary.c_str(), path.c_str()) != 0) return system_failure(path);
  return sync_path(std::filesystem::path(path).parent_path());
}

}  // namespace pensieve::gateway
