// Asks the kernel: a real group with a real limit, and a process in it that takes memory. Needs a
// machine where the test may make groups (root with a memory hierarchy). Elsewhere each test says
// NOT PROVEN HERE, and cgroup_test.cc is what remains.
#if defined(__linux__)

#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "memory/cgroup.h"
#include "memory/testing/fake_kernel_files.h"
#include "memory/testing/real_cgroup.h"

namespace pensieve::memory {
namespace {

/// A child process in the group that did one thing and then waits until it is told to end.
class ChildInGroup {
 public:
  /// Returns once the child has done `action` (REQUIRES: it returns true).
  template <class Action>
  ChildInGroup(const RealCgroup& group, Action action) {
    std::array<int, 2> done{};
    std::array<int, 2> hold{};
    PENSIEVE_CHECK(::pipe(done.data()) == 0 && ::pipe(hold.data()) == 0);
    child_ = ::fork();
    PENSIEVE_CHECK(child_ >= 0);
    if (child_ == 0) {
      ::close(hold[1]);
      char byte = 0;
      const bool ok = group.enter().has_value() && action();
      if (ok && ::write(done[1], &byte, 1) == 1) ok_to_ignore(::read(hold[0], &byte, 1));
      ::_exit(0);
    }
    ::close(done[1]);
    ::close(hold[0]);
    hold_ = hold[1];
    char byte = 0;
    PENSIEVE_CHECK(::read(done[0], &byte, 1) == 1);
    ::close(done[0]);
  }
  ~ChildInGroup() {
    ::close(hold_);  // The child's read() ends.
    int status = 0;
    ::waitpid(child_, &status, 0);
  }
  ChildInGroup(const ChildInGroup&) = delete;
  ChildInGroup& operator=(const ChildInGroup&) = delete;

 private:
  static void ok_to_ignore(ssize_t) {}

  pid_t child_ = -1;
  int hold_ = -1;
};

/// Populated by the kernel: where we wrote to the pages ourselves, ThreadSanitizer would take a
/// multiple of them for its shadow.
bool take_anonymous(Bytes amount) {
  return ::mmap(nullptr, amount.count(), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) != MAP_FAILED;
}

bool write_file(const std::string& path, Bytes amount) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return false;
  static std::array<char, 1 << 16> block{};
  for (std::uint64_t done = 0; done < amount.count(); done += block.size()) {
    if (::write(descriptor, block.data(), block.size()) != static_cast<ssize_t>(block.size())) {
      return false;
    }
  }
  return ::fsync(descriptor) == 0 && ::close(descriptor) == 0;
}

bool is_in_memory_only(const std::string& path) {
  struct statfs info {};
  PENSIEVE_CHECK(::statfs(path.c_str(), &info) == 0);
  return info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC;
}

class RealCgroupTest : public testing::Test {
 protected:
  RealCgroupTest() {
    Result<std::unique_ptr<RealCgroup>> made = RealCgroup::make(256_MiB);
    if (!made) {
      why_not_ = made.error().message;
      return;
    }
    group_ = std::move(*made);
    files_.write("self", group_->membership());
    meter_ = CgroupMemory::open({files_.at("self"), "/proc/self/mountinfo"}).value();
  }

  /// Where the machine says no: says so loudly, and proves the little that holds anywhere.
  bool is_proven_here() const {
    if (group_) return true;
    std::fprintf(stderr, "NOT PROVEN HERE: this machine makes no cgroup for us: %s\n",
                 why_not_.c_str());
    EXPECT_NE(why_not_, "");
    const auto own = CgroupMemory::open();
    EXPECT_TRUE(own.has_value() && (*own)->read().has_value());
    return false;
  }
  Reading read() { return meter_->read()->value(); }
  /// How much less is available than in `before`, in MiB; negative where it is more.
  double missing_mib(const Reading& before) {
    return (to_gb(before.available) - to_gb(read().available)) * 1024;
  }

  FakeKernelFiles files_;
  std::unique_ptr<RealCgroup> group_;
  std::unique_ptr<CgroupMemory> meter_;
  std::string why_not_;
};

// The kernel charges in batches per core and counts page tables as well: allow some MiB.
constexpr double kSlackMib = 12;

TEST_F(RealCgroupTest, WhereTheMachineAllowsItTheKernelsLimitIsFoundAndFollowed) {
  if (!is_proven_here()) return;
  const Reading empty = read();
  EXPECT_EQ(empty.total, 256_MiB);
  EXPECT_EQ(empty.limited_by, "cgroup " + group_->name());
  EXPECT_LE(empty.available, 256_MiB);
  EXPECT_GT(empty.available, 240_MiB);
  ASSERT_TRUE(group_->set_limit(128_MiB).has_value());
  EXPECT_EQ(read().total, 128_MiB);
  EXPECT_LE(read().available, 128_MiB);
}

TEST_F(RealCgroupTest, WhereTheMachineAllowsItMemoryTakenInTheGroupIsMissing) {
  if (!is_proven_here()) return;
  const Reading empty = read();
  {
    const ChildInGroup child(*group_, [] { return take_anonymous(64_MiB); });
    EXPECT_NEAR(missing_mib(empty), 64, kSlackMib);
  }
  EXPECT_NEAR(missing_mib(empty), 0, kSlackMib) << "the child is gone";
}

TEST_F(RealCgroupTest, WhereTheMachineAllowsItFileCacheOfTheGroupIsAvailable) {
  if (!is_proven_here()) return;
  const Reading empty = read();
  const std::string path = files_.at("written");
  const ChildInGroup child(*group_, [&] { return write_file(path, 64_MiB); });
  // A file of a tmpfs is shared memory, which no kernel can drop.
  EXPECT_NEAR(missing_mib(empty), is_in_memory_only(path) ? 64 : 0, kSlackMib);
}

}  // namespace
}  // namespace pensieve::memory

#endif
