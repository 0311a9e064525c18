// Walks trees of files that look like those of the kernel; real_cgroup_test.cc asks the kernel.
#include "memory/cgroup.h"

#include <memory>
#include <string>
#include <string_view>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "memory/testing/fake_kernel_files.h"

namespace pensieve::memory {
namespace {

class CgroupMemoryTest : public testing::Test {
 protected:
  CgroupMemoryTest() {
    files_.write("mountinfo",
                 fmt::format("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", files_.at("cg")));
    files_.write("cg/cgroup.procs", "");  // The root of v2: no limit files.
    move_to("/a/b");
  }

  void move_to(std::string_view group) { files_.write("self", fmt::format("0::{}\n", group)); }

  void make_group(std::string_view name, std::string_view max, std::uint64_t used) {
    const std::string folder = fmt::format("cg/{}/", name);
    files_.write(folder + "cgroup.procs", "");
    files_.write(folder + "memory.max", fmt::format("{}\n", max));
    files_.write(folder + "memory.high", "max\n");
    files_.write(folder + "memory.current", fmt::format("{}\n", used));
    files_.write(folder + "memory.stat", "inactive_file 0\nactive_file 0\n");
  }

  std::unique_ptr<CgroupMemory> open(const std::string& own_group = "") {
    return CgroupMemory::open({files_.at("self"), files_.at("mountinfo")}, own_group).value();
  }

  FakeKernelFiles files_;
};

TEST_F(CgroupMemoryTest, TheSmallestOfAllEnclosingGroupsWins) {
  make_group("a", "5000", 4900);
  make_group("a/b", "2000", 500);
  const auto meter = open();
  Reading reading = meter->read()->value();
  EXPECT_EQ(reading.available, Bytes(100)) << "the outer group is nearly full";
  EXPECT_EQ(reading.total, Bytes(5000));
  EXPECT_EQ(reading.limited_by, "cgroup /a");

  make_group("a", "5000", 500);
  reading = meter->read()->value();
  EXPECT_EQ(reading.available, Bytes(1500));
  EXPECT_EQ(reading.total, Bytes(2000));
  EXPECT_EQ(reading.limited_by, "cgroup /a/b");
}

TEST_F(CgroupMemoryTest, AGroupOfOurOwnIsLeftOutAndThoseAroundItAreNot) {
  make_group("a", "5000", 4900);
  make_group("a/b", "2000", 1990);
  const Reading reading = open("/a/b")->read()->value();
  EXPECT_EQ(reading.available, Bytes(100));
  EXPECT_EQ(reading.limited_by, "cgroup /a");
  EXPECT_EQ(open("/a/x")->read()->value().limited_by, "cgroup /a/b") << "we are not in that one";
}

TEST_F(CgroupMemoryTest, MaxMeansNoLimitAtThisLevelOnly) {
  make_group("a", "5000", 1000);
  make_group("a/b", "max", 500);
  EXPECT_EQ(open()->read()->value().available, Bytes(4000));
}

TEST_F(CgroupMemoryTest, NoLimitAnywhereIsKnownToBeNoLimit) {
  make_group("a", "max", 1000);
  make_group("a/b", "max", 500);
  const Result<std::optional<Reading>> reading = open()->read();
  ASSERT_TRUE(reading.has_value()) << reading.error().message;
  EXPECT_EQ(*reading, std::nullopt);
}

TEST_F(CgroupMemoryTest, ALimitThatAppearsAtRunTimeIsSeen) {
  make_group("a", "max", 1000);
  make_group("a/b", "max", 500);
  const auto meter = open();
  EXPECT_FALSE(meter->read()->has_value());
  files_.write("cg/a/memory.max", "1200\n");
  EXPECT_EQ(meter->read()->value().available, Bytes(200));
}

TEST_F(CgroupMemoryTest, AProcessThatIsMovedIsFollowed) {
  make_group("a", "max", 1000);
  make_group("a/b", "max", 500);
  make_group("c", "900", 100);
  const auto meter = open();
  EXPECT_FALSE(meter->read()->has_value());
  move_to("/c");
  EXPECT_EQ(meter->read()->value().available, Bytes(800));
  EXPECT_EQ(meter->read()->value().limited_by, "cgroup /c");
}

TEST_F(CgroupMemoryTest, OneGroupThatCannotBeReadMakesTheReadingFail) {
  make_group("a", "5000", 1000);
  make_group("a/b", "2000", 500);
  const auto meter = open();
  EXPECT_TRUE(meter->read().has_value());
  files_.write("cg/a/memory.current", "nonsense\n");
  EXPECT_FALSE(meter->read().has_value());
  files_.write("cg/a/memory.current", "1000\n");
  EXPECT_TRUE(meter->read().has_value()) << "the next reading starts from the beginning";
}

TEST_F(CgroupMemoryTest, AGroupThatIsNotThereIsAnErrorAndNotWithoutLimits) {
  make_group("a", "5000", 1000);
  const auto meter = open();  // In /a/b, which does not exist.
  EXPECT_FALSE(meter->read().has_value());
  make_group("a/b", "2000", 500);
  EXPECT_TRUE(meter->read().has_value());
}

TEST_F(CgroupMemoryTest, AMountTableThatCannotBeReadIsAnError) {
  make_group("a", "max", 0);
  make_group("a/b", "max", 0);
  files_.remove("mountinfo");
  EXPECT_FALSE(open()->read().has_value());
}

TEST_F(CgroupMemoryTest, AKernelWithoutCgroupsSetsNoLimit) {
  files_.remove("self");
  const Result<std::optional<Reading>> reading = open()->read();
  ASSERT_TRUE(reading.has_value());
  EXPECT_EQ(*reading, std::nullopt);
}

TEST_F(CgroupMemoryTest, OnAHybridMachineTheV1GroupsCount) {
  files_.write("self", "4:memory:/a\n0::/\n");
  files_.write("mountinfo", fmt::format("1 0 0:1 / {} rw - cgroup2 cgroup2 rw\n"
                                        "2 0 0:2 / {} rw - cgroup cgroup rw,memory\n",
                                        files_.at("cg"), files_.at("v1")));
  const auto make_v1 = [this](const std::string& folder, std::string_view limit) {
    files_.write(folder + "cgroup.procs", "");
    files_.write(folder + "memory.limit_in_bytes", fmt::format("{}\n", limit));
    files_.write(folder + "memory.usage_in_bytes", "600\n");
    files_.write(folder + "memory.stat", "total_inactive_file 100\ntotal_active_file 0\n");
  };
  make_v1("v1/", "9223372036854771712");
  make_v1("v1/a/", "1000");
  const Reading reading = open()->read()->value();
  EXPECT_EQ(reading.available, Bytes(500));
  EXPECT_EQ(reading.limited_by, "cgroup /a");
}

TEST(CgroupMemoryOnThisMachineTest, TheGroupsAroundUsCanBeRead) {
  const auto meter = CgroupMemory::open();
  ASSERT_TRUE(meter.has_value()) << meter.error().message;
  const Result<std::optional<Reading>> reading = (*meter)->read();
  ASSERT_TRUE(reading.has_value()) << reading.error().message;
  if (*reading) {
    EXPECT_LE((*reading)->available, (*reading)->total);
  }
}

}  // namespace
}  // namespace pensieve::memory
