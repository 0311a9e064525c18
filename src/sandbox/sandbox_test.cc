// Each test confines a child process and lets it try things: a claim is worth what the kernel says
// afterwards. Where a kernel lacks something, the claim must say so, and the test asks for both.
#if defined(__linux__)

#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include <gtest/gtest.h>

#include "base/error.h"

namespace pensieve::sandbox {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr int kPipe = 3;  // Where the worker has its socket.

/// What a child said, and how it ended.
struct Said {
  std::string text;
  int status = 0;
};

/// Runs `act` in a child; what it returns comes back. The child is one thread, as a worker is when
/// it confines itself.
Said in_child(const std::function<std::string()>& act) {
  std::array<int, 2> ends{};
  PENSIEVE_CHECK(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  PENSIEVE_CHECK(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], kPipe);
    const std::string text = act();
    const ssize_t written = ::write(kPipe, text.data(), text.size());
    ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  Said said;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    said.text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  ::waitpid(child, &said.status, 0);
  return said;
}

/// "ok" or the name of the error.
std::string outcome(bool done) {
  return done ? "ok" : ::strerrorname_np(errno);
}
std::string open_outcome(const std::string& path, int flags) {
  const int opened = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  const std::string result = outcome(opened >= 0);
  if (opened >= 0) ::close(opened);
  return result;
}
bool holds(const Protections& all, const std::string& name) {
  for (const Protection& one : all) {
    if (one.name == name) return one.holds;
  }
  return false;
}

class SandboxTest : public testing::Test {
 protected:
  SandboxTest() : folder_(testing::TempDir() + "pensieve-sandbox-XXXXXX") {
    PENSIEVE_CHECK(::mkdtemp(folder_.data()) != nullptr);
    fs::create_directory(at("cache"));
    for (const char* name : {"model.gguf", "other.gguf", "cache/old"}) {
      std::ofstream(at(name)) << "12345";
    }
    wanted_.readable = {at("model.gguf")};
    wanted_.writable_folders = {at("cache")};
    wanted_.parent = ::getpid();
    wanted_.last_descriptor = kPipe;
  }
  ~SandboxTest() override { fs::remove_all(folder_); }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }

  /// What a confined child says; `name` is the claim that `act` tries out. Where the claim does not
  /// hold here, it must say why, and `act` must be allowed.
  std::string confined(const std::string& name, const std::function<std::string()>& act) {
    const Said said = in_child([&] {
      const Protections all = confine_process(wanted_);
      return std::string(holds(all, name) ? "+" : "-") + act();
    });
    EXPECT_EQ(said.status, 0) << name;
    if (said.text.empty()) return "";
    if (said.text[0] == '-') {
      std::fprintf(stderr, "NOT PROVEN HERE: this kernel does not give \"%s\"\n", name.c_str());
    }
    is_held_ = said.text[0] == '+';
    return said.text.substr(1);
  }
  std::string denied(const char* error) const { return is_held_ ? error : "ok"; }

  std::string folder_;
  Wanted wanted_;
  bool is_held_ = false;
};

TEST_F(SandboxTest, EachClaimHasAReasonAndOnAModernKernelAllHold) {
  const Said said = in_child([&] {
    std::string text;
    for (const Protection& one : confine_process(wanted_)) {
      text += one.name + (one.holds ? " holds: " : " does not hold: ") + one.detail + "\n";
      if (one.detail.empty()) text += "NO REASON\n";
    }
    return text;
  });
  EXPECT_EQ(said.text.find("NO REASON"), std::string::npos) << said.text;
  EXPECT_EQ(std::ranges::count(said.text, '\n'), 9) << said.text;
  if (said.text.find("not hold") != std::string::npos) {
    std::fprintf(stderr, "NOT PROVEN HERE:\n%s", said.text.c_str());
  }
}

TEST_F(SandboxTest, TheModelCanBeReadAndNothingElseOfTheUsers) {
  EXPECT_EQ(
      confined("reads only its model", [&] { return open_outcome(at("model.gguf"), O_RDONLY); }),
      "ok");
  for (const std::string& path : {at("other.gguf"), std::string("/etc/passwd")}) {
    const std::string got =
        confined("reads only its model", [&] { return open_outcome(path, O_RDONLY); });
    EXPECT_EQ(got, denied("EACCES")) << path;
  }
  const std::string listed = confined(
      "reads only its model", [&] { return open_outcome(folder_, O_RDONLY | O_DIRECTORY); });
  EXPECT_EQ(listed, denied("EACCES"));
}

TEST_F(SandboxTest, WhatMemoryReadingsAndLibrariesNeedStaysReadable) {
  for (const char* path : {"/proc/meminfo", "/proc/self/status", "/proc/stat", "/proc/self/cgroup",
                           "/sys/devices/system/cpu/online", "/dev/urandom"}) {
    EXPECT_EQ(confined("reads only its model", [&] { return open_outcome(path, O_RDONLY); }), "ok")
        << path;
  }
  EXPECT_EQ(confined("writes only its cache", [] { return open_outcome("/dev/null", O_RDWR); }),
            "ok");
}

TEST_F(SandboxTest, FilesAreWrittenInTheCacheAndNowhereElse) {
  EXPECT_EQ(confined("writes only its cache",
                     [&] {
                       const std::string made = open_outcome(at("cache/new"), O_WRONLY | O_CREAT);
                       return made +
                              outcome(::rename(at("cache/new").c_str(),
                                               at("cache/renamed").c_str()) == 0) +
                              outcome(::unlink(at("cache/old").c_str()) == 0);
                     }),
            "okokok");
  const auto try_all = [&] {
    return open_outcome(at("new"), O_WRONLY | O_CREAT) + " " +
           open_outcome(at("model.gguf"), O_WRONLY) + " " +
           open_outcome(at("model.gguf"), O_RDONLY | O_TRUNC) + " " +
           outcome(::unlink(at("other.gguf").c_str()) == 0);
  };
  const std::string all = confined("writes only its cache", try_all);
  EXPECT_EQ(all, is_held_ ? "EACCES EACCES EACCES EACCES" : "ok ok ok ok");
}

TEST_F(SandboxTest, NothingIsWrittenWhereThereIsNoCache) {
  wanted_.writable_folders.clear();
  const std::string got = confined(
      "writes only its cache", [&] { return open_outcome(at("cache/new"), O_WRONLY | O_CREAT); });
  EXPECT_EQ(got, denied("EACCES"));
}

TEST_F(SandboxTest, ThereIsNoNewSocketAndTheOldOneWorks) {
  const auto sockets = [] {
    std::array<int, 2> pair{};
    return outcome(::socket(AF_INET, SOCK_STREAM, 0) >= 0) + " " +
           outcome(::socket(AF_INET6, SOCK_DGRAM, 0) >= 0) + " " +
           outcome(::socket(AF_UNIX, SOCK_STREAM, 0) >= 0) + " " +
           outcome(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0);
  };
  const std::string got = confined("no network", sockets);
  EXPECT_EQ(got, is_held_ ? "EPERM EPERM EPERM EPERM" : "ok ok ok ok");
}

TEST_F(SandboxTest, ThereIsNoOtherProgramAndNoHandOnOtherProcesses) {
  const pid_t parent = ::getpid();
  const auto attempts = [parent] {
    char program[] = "/bin/true";
    char* arguments[] = {program, nullptr};
    std::string text = outcome(::execve(program, arguments, nullptr) == 0);
    text += " " + outcome(::kill(parent, 0) == 0);
    text += " " + outcome(::syscall(SYS_tgkill, parent, parent, 0) == 0);
    text += " " + outcome(::syscall(SYS_pidfd_open, parent, 0) >= 0);
    return text;
  };
  const std::string got = confined("no other programs", attempts);
  if (is_held_) {
    EXPECT_EQ(got, "EPERM EPERM EPERM EPERM");
  }
}

TEST_F(SandboxTest, ThereAreNewThreadsAndNoNewProcesses) {
  const std::string got = confined("no other programs", [] {
    std::string text;
    std::thread([&text] { text = "thread "; }).join();
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    return text + outcome(child > 0);
  });
  EXPECT_EQ(got, kSanitized || !is_held_ ? "thread ok" : "thread EPERM");
}

TEST_F(SandboxTest, ThreadsThatComeLaterAreConfinedAsWell) {
  const std::string got = confined("no network", [] {
    std::string text;
    std::thread([&text] { text = outcome(::socket(AF_INET, SOCK_STREAM, 0) >= 0); }).join();
    return text;
  });
  EXPECT_EQ(got, denied("EPERM"));
}

TEST_F(SandboxTest, AnAbortStillEndsTheProcessByItsSignal) {
  const Said said = in_child([&] {
    confine_process(wanted_);
    ::signal(SIGABRT, SIG_DFL);
    std::abort();
    return std::string();
  });
  EXPECT_TRUE(WIFSIGNALED(said.status));
  EXPECT_EQ(WTERMSIG(said.status), SIGABRT);
}

TEST_F(SandboxTest, ItIsKilledFirstAndCannotChangeThat) {
  const std::string got = confined("first to be killed", [] {
    int now = 0;
    std::ifstream("/proc/self/oom_score_adj") >> now;
    return std::to_string(now) + " " + open_outcome("/proc/self/oom_score_adj", O_WRONLY);
  });
  EXPECT_EQ(got, "1000 EACCES");
}

TEST_F(SandboxTest, ItsLimitOfCoresIsOneByteForGood) {
  const std::string got = confined("no core dumps", [] {
    rlimit limit{};
    ::getrlimit(RLIMIT_CORE, &limit);
    const rlimit more{RLIM_INFINITY, RLIM_INFINITY};
    return std::to_string(limit.rlim_cur) + " " + outcome(::setrlimit(RLIMIT_CORE, &more) == 0);
  });
  EXPECT_EQ(got, "1 EPERM");
}

TEST_F(SandboxTest, DescriptorsAboveTheLastOneAreClosed) {
  const std::string got = confined("descriptors closed", [] {
    return outcome(::fcntl(100, F_GETFD) >= 0) + " " + outcome(::fcntl(kPipe, F_GETFD) >= 0);
  });
  EXPECT_EQ(got, "EBADF ok");
  const Said said = in_child([&] {
    PENSIEVE_CHECK(::dup2(0, 100) == 100);
    confine_process(wanted_);
    return outcome(::fcntl(100, F_GETFD) >= 0);
  });
  EXPECT_EQ(said.text, "EBADF");
}

TEST_F(SandboxTest, PrivilegesAreGone) {
  const std::string got = confined("no privileges", [] {
    std::ifstream status("/proc/self/status");
    std::string text;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("NoNewPrivs:") || line.starts_with("CapEff:")) text += line + " ";
    }
    return text;
  });
  EXPECT_NE(got.find("NoNewPrivs:\t1"), std::string::npos) << got;
  // Bits 1 and 2 are those to open files; whoever is not root has none.
  const std::string set = got.substr(got.find("CapEff:\t") + 8, 16);
  EXPECT_TRUE(set == "0000000000000006" || set == "0000000000000000") << got;
}

TEST_F(SandboxTest, AUserWithoutPrivilegesIsConfinedAlike) {
  if (::getuid() != 0) return;  // Then every other test has just proved that.
  fs::permissions(folder_, fs::perms::all);
  const Said said = in_child([&] {
    PENSIEVE_CHECK(::setresgid(65534, 65534, 65534) == 0 && ::setresuid(65534, 65534, 65534) == 0);
    ::prctl(PR_SET_DUMPABLE, 1);  // Changing the user has made /proc/self root's.
    std::string missing;
    for (const Protection& one : confine_process(wanted_)) {
      if (!one.holds) missing += one.name + ": " + one.detail + "\n";
    }
    return missing + open_outcome("/etc/passwd", O_RDONLY);
  });
  EXPECT_EQ(said.text, "EACCES");
}

// --- the end of the parent
// ------------------------------------------------------------------------

// The child's child confines itself and waits for ever; the child ends as soon as that is done.
TEST_F(SandboxTest, ItDiesWithItsParent) {
  std::array<int, 2> alive{};
  PENSIEVE_CHECK(::pipe(alive.data()) == 0);
  const Said said = in_child([&] {
    const pid_t middle = ::getpid();
    std::array<int, 2> ready{};
    PENSIEVE_CHECK(::pipe(ready.data()) == 0);
    if (::fork() == 0) {
      ::dup2(alive[1], kPipe);
      ::dup2(ready[1], 4);
      wanted_.parent = middle;
      wanted_.last_descriptor = 4;
      const char held = holds(confine_process(wanted_), "dies with the gateway") ? '+' : '-';
      if (::write(4, &held, 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char held = 0;
    PENSIEVE_CHECK(::read(ready[0], &held, 1) == 1);
    return std::string(1, held);
  });
  EXPECT_EQ(said.text, "+");
  ::close(alive[1]);
  char byte = 0;
  EXPECT_EQ(::read(alive[0], &byte, 1), 0) << "the end of the file is the end of the process";
  ::close(alive[0]);
}

TEST_F(SandboxTest, WhereTheParentIsDeadAlreadyItEndsAtOnce) {
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  wanted_.parent = dead;
  const Said said = in_child([&] {
    confine_process(wanted_);
    return std::string("lives");
  });
  EXPECT_EQ(said.text, "");
  EXPECT_TRUE(WIFSIGNALED(said.status));
  EXPECT_EQ(WTERMSIG(said.status), SIGKILL);
}

TEST_F(SandboxTest, ALivingProcessThatIsNotTheParentIsSaidToBeNone) {
  wanted_.parent = ::getppid();  // The test's, not the child's.
  const Said said = in_child([&] {
    const bool held = holds(confine_process(wanted_), "dies with the gateway");
    return std::string(held ? "held" : "lives");
  });
  EXPECT_EQ(said.text, "lives");
}

// --- kernels that say no
// --------------------------------------------------------------------------

/// Makes this process believe that the kernel does not know a call.
void forget(int call) {
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
  PENSIEVE_CHECK(::seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(ENOSYS), call, 0, nullptr) == 0);
  PENSIEVE_CHECK(::seccomp_load(filter) == 0);
  ::seccomp_release(filter);
}

std::string lacking(const Protections& all) {
  std::string text;
  for (const Protection& one : all) {
    if (!one.holds) text += one.name + " (" + one.detail + ") -> " + one.remedy + "\n";
  }
  return text;
}

TEST_F(SandboxTest, WithoutLandlockTheRestHoldsAndTheClaimsSaySo) {
  const Said said = in_child([&] {
    forget(SYS_landlock_create_ruleset);
    return lacking(confine_process(wanted_)) + open_outcome("/etc/passwd", O_RDONLY);
  });
  EXPECT_NE(said.text.find("reads only its model (landlock: Function not implemented)"),
            std::string::npos)
      << said.text;
  EXPECT_NE(said.text.find("writes only its cache (landlock: "), std::string::npos);
  EXPECT_NE(said.text.find("Linux 5.13"), std::string::npos) << "what to do about it";
  EXPECT_EQ(said.text.find("no network"), std::string::npos) << said.text;
  EXPECT_TRUE(said.text.ends_with("ok"));
}

TEST_F(SandboxTest, WithoutSeccompLandlockStillKeepsItFromTcp) {
  const Said said = in_child([&] {
    forget(SYS_seccomp);
    const Protections all = confine_process(wanted_);
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(9);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int connected =
        ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    return lacking(all) + outcome(connected == 0) + (holds(all, "no network") ? " held" : " open");
  });
  EXPECT_NE(said.text.find("no other programs (seccomp: "), std::string::npos) << said.text;
  EXPECT_TRUE(said.text.ends_with("EACCES held") || said.text.ends_with("ECONNREFUSED open"))
      << said.text;
}

TEST_F(SandboxTest, WithoutCloseRangeThatIsSaid) {
  const Said said = in_child([&] {
    forget(SYS_close_range);
    return lacking(confine_process(wanted_));
  });
  EXPECT_NE(said.text.find("descriptors closed (Function not implemented)"), std::string::npos)
      << said.text;
}

}  // namespace
}  // namespace pensieve::sandbox

#endif
