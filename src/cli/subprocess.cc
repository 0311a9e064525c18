#include "cli/subprocess.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/core.h>

extern char** environ;

namespace pensieve::cli {
namespace {

constexpr std::size_t kTextBytesMax = 64 << 10;

/// Reads until the program closes its output; false at the deadline.
bool read_all(int fd, TimePoint deadline, std::string& text) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock().now());
    if (left.count() <= 0) return false;
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&waiting, 1, static_cast<int>(left.count()));
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    char piece[4096];
    const ssize_t got = ready < 0 ? -1 : read(fd, piece, sizeof piece);
    if (got <= 0) return true;
    const std::size_t room = kTextBytesMax - text.size();
    text.append(piece, std::min(room, static_cast<std::size_t>(got)));
  }
}

/// The program's end as waitpid(2) tells it; empty at the deadline (a program may close its output
/// and stay).
std::optional<int> wait_until(pid_t pid, TimePoint deadline) {
  constexpr int kPollMs = 5;
  for (;;) {
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) return status;
    if (steady_clock().now() >= deadline) return std::nullopt;
    poll(nullptr, 0, kPollMs);
  }
}

Result<pid_t> start(const std::vector<std::string>& argv, int output) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own, so that at the deadline its children end with it.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, arguments[0], &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return fail(Code::kNotFound,
                fmt::format("{} cannot be started: {}", argv[0], std::strerror(error)));
  }
  return pid;
}

}  // namespace

Result<ProgramOutput> run_program(const std::vector<std::string>& argv, Duration limit) {
  PENSIEVE_CHECK(!argv.empty());
  const TimePoint deadline = steady_clock().now() + limit;
  int ends[2];
  if (pipe(ends) != 0) {
    return fail(Code::kInternal, fmt::format("no pipe for {}: {}", argv[0], std::strerror(errno)));
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  const Result<pid_t> pid = start(argv, ends[1]);
  close(ends[1]);
  ProgramOutput output;
  const bool in_time = pid && read_all(ends[0], deadline, output.text);
  close(ends[0]);
  if (!pid) return std::unexpected(pid.error());
  const std::optional<int> status = in_time ? wait_until(*pid, deadline) : std::nullopt;
  if (!status) {
    kill(-*pid, SIGKILL);
    while (waitpid(*pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return fail(Code::kDeadlineExceeded,
                fmt::format("{} did not end within {} s and was killed", argv[0],
                            std::chrono::duration_cast<std::chrono::seconds>(limit).count()));
  }
  output.status = WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
  return output;
}

std::string find_in_path(const std::string& program, const std::string& path) {
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t colon = std::min(path.find(':', at), path.size());
    // An empty entry means the working directory, where nothing should be run from.
    const std::string candidate = path.substr(at, colon - at) + "/" + program;
    std::error_code ignored;
    const bool file = std::filesystem::is_regular_file(candidate, ignored);
    if (colon > at && file && access(candidate.c_str(), X_OK) == 0) return candidate;
    at = colon + 1;
  }
  return {};
}

}  // namespace pensieve::cli
