// Asks the kernel: real groups, and its real out-of-memory killer. Needs a machine where the test
// may make groups (root with a v1 memory hierarchy, or a delegated v2 group). Elsewhere each test
// says NOT PROVEN HERE, and worker_groups_test.cc is what remains.
#if defined(__linux__)

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>

#include <gtest/gtest.h>

#include "worker/worker_groups.h"
#include "worker/worker_process.h"

namespace pensieve::worker {
namespace {

class RealWorkerGroupsTest : public testing::Test {
 protected:
  RealWorkerGroupsTest() {
    auto groups = WorkerGroups::open();
    if (groups) {
      groups_ = std::move(*groups);
    } else {
      why_not_ = groups.error().message;
    }
  }

  bool is_proven_here() const {
    if (groups_) return true;
    std::fprintf(stderr, "NOT PROVEN HERE: this machine makes no groups for us: %s\n",
                 why_not_.c_str());
    EXPECT_NE(why_not_, "");
    return false;
  }

  std::unique_ptr<WorkerGroup> make() {
    auto group = groups_->make();
    EXPECT_TRUE(group) << group.error().message;
    return std::move(*group);
  }

  std::unique_ptr<WorkerGroups> groups_;
  std::string why_not_;
};

/// Starts with nothing, waits for a byte at its socket, then takes memory without end.
constexpr const char* kHog = R"(
read -r line <&3
exec python3 -c '
held = []
while True: held.append(b"x" * (1 << 20))
')";

void wait_for_end(pid_t pid) {
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
}

TEST_F(RealWorkerGroupsTest, AHogIsKilledAtItsOwnLimitAndABystanderLives) {
  if (!is_proven_here()) return;
  Result<WorkerProcess> bystander = WorkerProcess::spawn("/bin/sh", {"-c", "exec cat <&3"});
  Result<WorkerProcess> hog = WorkerProcess::spawn("/bin/sh", {"-c", kHog});
  ASSERT_TRUE(bystander && hog);
  std::unique_ptr<WorkerGroup> group = make();
  ASSERT_TRUE(group->set_reserved(1_MiB));
  ASSERT_EQ(group->limit(), 129_MiB);
  EXPECT_EQ(group->oom_kills(), 0U);
  ASSERT_TRUE(hog->confine(std::move(group)));
  const int socket = hog->release_socket();
  ASSERT_EQ(::write(socket, "\n", 1), 1);
  wait_for_end(hog->pid());
  ::close(socket);
  const auto end = hog->try_reap();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->end, WorkerEnd::kKilledByKernel) << describe(end->end, end->wait_status);
  EXPECT_FALSE(bystander->try_reap());
}

TEST_F(RealWorkerGroupsTest, AKillBySomebodyElseIsNotTakenForTheKernels) {
  if (!is_proven_here()) return;
  Result<WorkerProcess> first = WorkerProcess::spawn("/bin/sh", {"-c", kHog});
  Result<WorkerProcess> second = WorkerProcess::spawn("/bin/sh", {"-c", "exec cat <&3"});
  ASSERT_TRUE(first && second);
  std::unique_ptr<WorkerGroup> group = make();
  ASSERT_TRUE(group->set_reserved(1_MiB));
  ASSERT_TRUE(first->confine(std::move(group)));
  ASSERT_TRUE(second->confine(make()));
  const int socket = first->release_socket();
  ASSERT_EQ(::write(socket, "\n", 1), 1);
  wait_for_end(first->pid());
  ::close(socket);
  // The killer has struck next door; this one is shot by us, from outside.
  ::kill(second->pid(), SIGKILL);
  wait_for_end(second->pid());
  EXPECT_EQ(second->try_reap()->end, WorkerEnd::kKilled);
  EXPECT_EQ(first->try_reap()->end, WorkerEnd::kKilledByKernel);
}

TEST_F(RealWorkerGroupsTest, TheGroupGoesWithItsReapedProcess) {
  if (!is_proven_here()) return;
  std::string folder;
  std::string membership;
  {
    Result<WorkerProcess> process =
        WorkerProcess::spawn("/bin/sh", {"-c", "read -r l <&3; cat /proc/self/cgroup >&3"});
    ASSERT_TRUE(process);
    ASSERT_TRUE(process->confine(make()));
    const std::string name = process->group()->name();
    folder = process->group()->folder();
    EXPECT_TRUE(std::filesystem::exists(folder));
    const int socket = process->release_socket();
    ASSERT_EQ(::write(socket, "\n", 1), 1);
    std::array<char, 4096> text{};
    ssize_t got = 0;
    while ((got = ::read(socket, text.data(), text.size())) > 0) {
      membership.append(text.data(), static_cast<std::size_t>(got));
    }
    ::close(socket);
    EXPECT_NE(membership.find(":" + name + "\n"), std::string::npos)
        << "the name is the kernel's: " << name << " in\n"
        << membership;
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(RealWorkerGroupsTest, TheKernelTakesEveryLimitInBothDirections) {
  if (!is_proven_here()) return;
  const std::unique_ptr<WorkerGroup> group = make();
  for (const Bytes reserved : {2_GiB, 1_MiB, 1_GiB, 64_GiB, 4_MiB}) {
    const auto set = group->set_reserved(reserved);
    EXPECT_TRUE(set) << set.error().message;
    EXPECT_EQ(group->limit(), limit_for(reserved));
  }
}

}  // namespace
}  // namespace pensieve::worker

#endif
