// Real child processes, without frames: how they start and how they end.
#include "worker/worker_process.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

Result<WorkerProcess> shell(const std::string& script) {
  return WorkerProcess::spawn("/bin/sh", {"-c", script});
}

/// Waits for the process to end and leaves it to be reaped.
void wait_for_end(pid_t pid) {
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
}

WorkerEnd end_of(const std::string& script) {
  Result<WorkerProcess> process = shell(script);
  EXPECT_TRUE(process);
  wait_for_end(process->pid());
  const auto end = process->try_reap();
  EXPECT_TRUE(end);
  return end->end;
}

/// What the script says over its socket until it closes it.
std::string says(const std::string& script) {
  Result<WorkerProcess> process = shell(script);
  EXPECT_TRUE(process);
  const int socket = process->release_socket();
  std::string text;
  char buffer[512];
  for (ssize_t got = 0; (got = ::read(socket, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(socket);
  return text;
}

TEST(WorkerProcessTest, AnExitThatNobodyAskedForIsACrashEvenWithCodeZero) {
  EXPECT_EQ(end_of("exit 0"), WorkerEnd::kCrashed);
  EXPECT_EQ(end_of("exit 1"), WorkerEnd::kCrashed);
  EXPECT_EQ(end_of("kill -SEGV $$"), WorkerEnd::kCrashed);
}

TEST(WorkerProcessTest, AnExitThatWasAskedForIsClean) {
  Result<WorkerProcess> process = shell("read line <&3");
  ASSERT_TRUE(process) << process.error().message;
  EXPECT_FALSE(process->try_reap());
  process->expect_stop();
  const int socket = process->release_socket();
  ASSERT_EQ(::send(socket, "stop\n", 5, MSG_NOSIGNAL), 5);
  wait_for_end(process->pid());
  ::close(socket);
  const auto end = process->try_reap();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->end, WorkerEnd::kClean);
  EXPECT_TRUE(WIFEXITED(end->wait_status));
  EXPECT_FALSE(process->try_reap()) << "an end is told once";
}

TEST(WorkerProcessTest, ItsOwnExitCodeForAFailedAllocationIsKnown) {
  EXPECT_EQ(end_of("exit 91"), WorkerEnd::kOutOfMemory);
  EXPECT_EQ(end_of("exit 92"), WorkerEnd::kCrashed);
}

TEST(WorkerProcessTest, KillFromOutsideIsKilled) {
  EXPECT_EQ(end_of("kill -KILL $$"), WorkerEnd::kKilled);
}

TEST(WorkerProcessTest, OfSeveralReasonsToKillTheFirstCounts) {
  Result<WorkerProcess> process = shell("exec cat <&3");
  ASSERT_TRUE(process) << process.error().message;
  process->kill(WorkerEnd::kDeadline);
  process->kill(WorkerEnd::kKilledForMemory);
  wait_for_end(process->pid());
  EXPECT_EQ(process->try_reap()->end, WorkerEnd::kDeadline);
}

TEST(WorkerProcessTest, AProgramThatCannotBeStartedIsAnErrorWithItsName) {
  for (const char* program : {"/nowhere/pensieve-worker", "/tmp", ""}) {
    const Result<WorkerProcess> process = WorkerProcess::spawn(program, {});
    ASSERT_FALSE(process) << program;
    EXPECT_EQ(process.error().code, Code::kNotFound);
    EXPECT_NE(process.error().message.find(program), std::string::npos);
  }
}

TEST(WorkerProcessTest, ItsDestructorLeavesNoProcessBehind) {
  pid_t pid = 0;
  {
    const Result<WorkerProcess> process = shell("exec cat <&3");
    ASSERT_TRUE(process) << process.error().message;
    pid = process->pid();
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(WorkerProcessTest, AMovedProcessIsKilledOnceAndByItsNewOwner) {
  Result<WorkerProcess> first = shell("exec cat <&3");
  ASSERT_TRUE(first) << first.error().message;
  const pid_t pid = first->pid();
  {
    const WorkerProcess second = std::move(*first);
    EXPECT_EQ(second.pid(), pid);
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(WorkerProcessTest, TheChildHasAProcessGroupOfItsOwn) {
  Result<WorkerProcess> process = shell("exec cat <&3");
  ASSERT_TRUE(process) << process.error().message;
  EXPECT_EQ(::getpgid(process->pid()), process->pid());
}

TEST(WorkerProcessTest, TheChildGetsOurEnvironmentAndNoDebuggerOnCrashes) {
  EXPECT_EQ(says("printf %s \"$GGML_NO_BACKTRACE\" >&3"), "1");
  EXPECT_EQ(says("printf %s \"$PATH\" >&3"), ::getenv("PATH"));
}

TEST(WorkerProcessTest, TheChildGetsNoSecretsAndWhatSteersEngines) {
  ::setenv("PENSIEVE_SERVER_API_KEY", "sesame", 1);
  ::setenv("SOME_TOKEN", "sesame", 1);
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  const std::string environment = says("env >&3");
  ::unsetenv("PENSIEVE_SERVER_API_KEY");
  ::unsetenv("SOME_TOKEN");
  ::unsetenv("OMP_WAIT_POLICY");
  EXPECT_EQ(environment.find("sesame"), std::string::npos) << environment;
  EXPECT_NE(environment.find("OMP_WAIT_POLICY=passive\n"), std::string::npos) << environment;
}

TEST(WorkerProcessTest, TheChildHasNoTerminalToReadFrom) {
  EXPECT_EQ(says("readlink /proc/self/fd/0 >&3"), "/dev/null\n");
}

TEST(WorkerProcessTest, TheChildIsDeafToNoSignalThatWeBlockOrIgnore) {
  sigset_t term;
  ::sigemptyset(&term);
  ::sigaddset(&term, SIGTERM);
  sigset_t before;
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &term, &before), 0);
  const auto handler_before = ::signal(SIGINT, SIG_IGN);
  EXPECT_EQ(says("kill -TERM $$; printf alive >&3"), "");
  EXPECT_EQ(says("kill -INT $$; printf alive >&3"), "");
  ::signal(SIGINT, handler_before);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

#if defined(__linux__)
TEST(WorkerProcessTest, TheChildDoesNotHoldTheSocketsOfItsSiblings) {
  Result<WorkerProcess> first = shell("exec cat <&3");
  ASSERT_TRUE(first) << first.error().message;
  const int ours = first->release_socket();
  const std::string held = says("for f in /proc/self/fd/*; do readlink $f; done >&3");
  const auto socket_at = [](const std::string& descriptor) {
    return std::filesystem::read_symlink("/proc/" + descriptor).string() + "\n";
  };
  EXPECT_NE(held.find("socket:"), std::string::npos) << "its own";
  EXPECT_EQ(held.find(socket_at("self/fd/" + std::to_string(ours))), std::string::npos);
  EXPECT_EQ(held.find(socket_at(std::to_string(first->pid()) + "/fd/3")), std::string::npos);
  ::close(ours);
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

TEST(WorkerProcessTest, FiftyStartsLeaveNoDescriptorAndNoZombie) {
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 50; ++i) {
    Result<WorkerProcess> process = shell(i % 2 == 0 ? "exit 0" : "exec cat <&3");
    ASSERT_TRUE(process) << process.error().message;
    if (i % 2 == 0) wait_for_end(process->pid());
    if (i % 4 == 0) {
      EXPECT_TRUE(process->try_reap());
    }
    EXPECT_FALSE(WorkerProcess::spawn("/nowhere/worker", {}));
  }
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}
#endif

}  // namespace
}  // namespace pensieve::worker
