#include "worker/worker_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>
#include <utility>

#include <fmt/core.h>

extern char** environ;

namespace pensieve::worker {
namespace {

/// Both ends of a socketpair, neither inherited by other children.
Result<std::pair<int, int>> open_socketpair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return fail(Code::kInternal, fmt::format("socketpair: {}", std::strerror(errno)));
  }
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  return std::pair(ends[0], ends[1]);
}

/// What a worker may know of our environment: where programs and libraries are, the language, and
/// what steers engines, allocators and sanitizers. Everything else (keys and tokens of the user's
/// other programs, our own API key) is none of its business.
bool is_for_workers(std::string_view entry) {
  constexpr std::string_view kNames[] = {"PATH=", "HOME=", "LANG=", "TZ=", "TMPDIR="};
  constexpr std::string_view kPrefixes[] = {
      "LC_",   "LD_",     "DYLD_", "OMP_",   "GOMP_", "GGML_",   "LLAMA_",
      "CUDA_", "HIP_",    "ROCR_", "HSA_",   "VK_",   "NVIDIA_", "METAL_",
      "MLX_",  "MALLOC_", "ASAN_", "UBSAN_", "TSAN_", "LSAN_",   "GLIBC_"};
  const auto begins = [&](std::string_view start) { return entry.starts_with(start); };
  return std::ranges::any_of(kNames, begins) || std::ranges::any_of(kPrefixes, begins);
}

std::vector<std::string> worker_environment() {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (is_for_workers(*entry)) environment.emplace_back(*entry);
  }
  // ggml's terminate handler would start a debugger on every crash.
  environment.emplace_back("GGML_NO_BACKTRACE=1");
  return environment;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

int spawn_child(const std::string& program, std::vector<std::string> arguments, int socket,
                pid_t& pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  // Where both are the same number, dup2 clears close-on-exec (POSIX.1-2024, glibc since 2.29).
  ::posix_spawn_file_actions_adddup2(&actions, socket, kWorkerSocketFd);
  // A worker has nothing to read from the user's terminal.
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  // Asio's sockets are not close-on-exec: a worker would keep the listening port open.
#if defined(__APPLE__)
  constexpr int kCloseOthers = POSIX_SPAWN_CLOEXEC_DEFAULT;
  for (int fd = 0; fd < kWorkerSocketFd; ++fd) {
    ::posix_spawn_file_actions_addinherit_np(&actions, fd);
  }
#else
  constexpr int kCloseOthers = 0;
  ::posix_spawn_file_actions_addclosefrom_np(&actions, kWorkerSocketFd + 1);
#endif
  ::posix_spawnattr_setflags(&attributes, kCloseOthers | POSIX_SPAWN_SETPGROUP |
                                              POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);

  arguments.insert(arguments.begin(), program);
  std::vector<std::string> environment = worker_environment();
  std::vector<char*> argv = pointers_to(arguments);
  std::vector<char*> envp = pointers_to(environment);
  const int failed =
      ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), envp.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  return failed;
}

}  // namespace

Result<WorkerProcess> WorkerProcess::spawn(const std::string& program,
                                           const std::vector<std::string>& args) {
  const auto ends = open_socketpair();
  if (!ends) return std::unexpected(ends.error());
  WorkerProcess process;
  process.socket_ = ends->first;
  process.oom_kills_at_start_ = process.oom_kills_.read();
  const int failed = spawn_child(program, args, ends->second, process.pid_);
  ::close(ends->second);
  if (failed != 0) {
    process.pid_ = -1;
    return fail(Code::kNotFound,
                fmt::format("cannot start the worker {}: {}", program, std::strerror(failed)));
  }
  return process;
}

WorkerProcess::WorkerProcess(WorkerProcess&& other) noexcept {
  *this = std::move(other);
}

WorkerProcess& WorkerProcess::operator=(WorkerProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(socket_, other.socket_);
  std::swap(stop_requested_, other.stop_requested_);
  std::swap(our_verdict_, other.our_verdict_);
  std::swap(group_, other.group_);
  std::swap(oom_kills_, other.oom_kills_);
  std::swap(oom_kills_at_start_, other.oom_kills_at_start_);
  return *this;
}

WorkerProcess::~WorkerProcess() {
  if (socket_ >= 0) ::close(socket_);
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  kill_what_it_started();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<void> WorkerProcess::confine(std::unique_ptr<WorkerGroup> group) {
  Result<void> admitted = group->admit(pid_);
  if (admitted) group_ = std::move(group);
  return admitted;
}

int WorkerProcess::release_socket() {
  return std::exchange(socket_, -1);
}

void WorkerProcess::kill(WorkerEnd verdict) {
  if (pid_ < 0 || our_verdict_) return;
  our_verdict_ = verdict;
  ::kill(pid_, SIGKILL);
  kill_what_it_started();
}

bool WorkerProcess::has_ended() const {
  if (pid_ < 0) return true;
  siginfo_t info{};
  // Its id stays taken, so that nobody else can be meant by it.
  return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid_;
}

/// It leads a process group of its own, whose number is its own while it is not reaped.
void WorkerProcess::kill_what_it_started() const {
  if (pid_ > 0) ::kill(-pid_, SIGKILL);
}

std::optional<WorkerProcess::End> WorkerProcess::try_reap() {
  if (pid_ < 0 || !has_ended()) return std::nullopt;
  kill_what_it_started();
  int status = 0;
  const pid_t gone = ::waitpid(pid_, &status, WNOHANG);
  if (gone != pid_) return std::nullopt;
  pid_ = -1;
  return End{classify({status, stop_requested_, killed_by_kernel(), our_verdict_}), status};
}

/// Exact with a group of its own, where nobody else can be killed. Without one the counter is about
/// everybody in the gateway's group.
bool WorkerProcess::killed_by_kernel() const {
  if (group_) {
    const std::optional<std::uint64_t> own = group_->oom_kills();
    return own && *own > 0;
  }
  const std::optional<std::uint64_t> kills = oom_kills_.read();
  return kills && oom_kills_at_start_ && *kills > *oom_kills_at_start_;
}

}  // namespace pensieve::worker
