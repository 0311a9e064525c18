#include "memory/cgroup_group.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "memory/testing/fake_kernel_files.h"

namespace pensieve::memory {
namespace {

TEST(ParseCgroupLimitTest, ANumberIsALimitAndTheWordMaxIsNone) {
  EXPECT_EQ(parse_cgroup_limit("1073741824\n").value(), 1_GiB);
  EXPECT_EQ(parse_cgroup_limit("0\n").value(), Bytes());
  EXPECT_EQ(parse_cgroup_limit("max\n").value(), std::nullopt);
}

TEST(ParseCgroupLimitTest, TheV1ValuesForNoLimitAreNone) {
  EXPECT_EQ(parse_cgroup_limit("9223372036854771712\n").value(), std::nullopt) << "4 KiB pages";
  EXPECT_EQ(parse_cgroup_limit("9223372036854710272\n").value(), std::nullopt) << "64 KiB pages";
  EXPECT_EQ(parse_cgroup_limit("9223372036854775807\n").value(), std::nullopt) << "old kernels";
  EXPECT_EQ(parse_cgroup_limit("1099511627776\n").value(), 1024_GiB) << "large, and a limit";
}

TEST(ParseCgroupLimitTest, AnythingElseIsAnErrorAndNotUnlimited) {
  for (const std::string_view nonsense :
       {"", "\n", "max", "1024", "-1\n", "1024 \n", "MAX\n", "99999999999999999999\n"}) {
    EXPECT_FALSE(parse_cgroup_limit(nonsense).has_value()) << nonsense;
  }
}

TEST(ParseCgroupFileCacheTest, CountsFilePagesAndNeitherSharedMemoryNorLockedPages) {
  const std::string_view v2 =
      "anon 1\nfile 4000\nshmem 900\ninactive_anon 7\nactive_anon 7\n"
      "inactive_file 1000\nactive_file 2000\nunevictable 100\n";
  EXPECT_EQ(parse_cgroup_file_cache(v2, CgroupVersion::kV2).value(), Bytes(3000));
}

TEST(ParseCgroupFileCacheTest, CountsTheGroupsBelowOnV1) {
  const std::string_view v1 =
      "cache 9\ninactive_file 1\nactive_file 2\ntotal_inactive_file 1000\n"
      "total_active_file 2000\n";
  EXPECT_EQ(parse_cgroup_file_cache(v1, CgroupVersion::kV1).value(), Bytes(3000));
}

TEST(ParseCgroupFileCacheTest, AMissingOrBrokenFieldIsAnErrorAndNotZero) {
  for (const std::string_view text :
       {"", "inactive_file 1\n", "active_file 1\n", "inactive_file 1\nactive_file 2",
        "inactive_file 1\nactive_file -2\n",
        "inactive_file 18446744073709551615\nactive_file 1\n"}) {
    EXPECT_FALSE(parse_cgroup_file_cache(text, CgroupVersion::kV2).has_value()) << text;
  }
}

/// One v2 group's folder: limit 1000, 600 used, of which 150 are file cache.
struct FakeGroup {
  FakeGroup() {
    files.write("memory.max", "1000\n");
    files.write("memory.high", "max\n");
    files.write("memory.current", "600\n");
    files.write("memory.stat", "inactive_file 100\nactive_file 50\n");
  }
  CgroupGroup open() const { return CgroupGroup({"/a", files.root()}, CgroupVersion::kV2); }

  FakeKernelFiles files;
};

class CgroupGroupTest : public testing::Test {
 protected:
  CgroupGroup v2() const { return fake_.open(); }

  FakeGroup fake_;
  FakeKernelFiles& files_ = fake_.files;
};

TEST_F(CgroupGroupTest, AvailableIsTheLimitLessWhatIsUsedAndNotFileCache) {
  CgroupGroup group = v2();
  const CgroupGroup::Headroom headroom = group.read()->value();
  EXPECT_EQ(headroom.available, Bytes(550));
  EXPECT_EQ(headroom.limit, Bytes(1000));
}

TEST_F(CgroupGroupTest, TheThrottleLimitCountsAsALimitAndTheSmallerOneWins) {
  CgroupGroup group = v2();
  files_.write("memory.high", "800\n");
  EXPECT_EQ(group.read()->value().limit, Bytes(800));
  EXPECT_EQ(group.read()->value().available, Bytes(350));
  files_.write("memory.max", "max\n");
  EXPECT_EQ(group.read()->value().limit, Bytes(800));
  files_.write("memory.max", "700\n");
  EXPECT_EQ(group.read()->value().limit, Bytes(700));
}

TEST_F(CgroupGroupTest, LimitsAreReadAnewEachTime) {
  CgroupGroup group = v2();
  EXPECT_EQ(group.read()->value().available, Bytes(550));
  files_.write("memory.max", "700\n");
  EXPECT_EQ(group.read()->value().available, Bytes(250));
  files_.write("memory.max", "max\n");
  EXPECT_EQ(group.read().value(), std::nullopt);
}

TEST_F(CgroupGroupTest, UseAboveTheLimitLeavesNothing) {
  CgroupGroup group = v2();
  files_.write("memory.current", "5000\n");
  EXPECT_EQ(group.read()->value().available, Bytes());
}

TEST_F(CgroupGroupTest, MoreFileCacheThanUseGivesNoMoreThanTheLimit) {
  CgroupGroup group = v2();
  files_.write("memory.stat", "inactive_file 5000\nactive_file 5000\n");
  EXPECT_EQ(group.read()->value().available, Bytes(1000));
}

TEST_F(CgroupGroupTest, AV2GroupWithoutLimitFilesSetsNoLimitUntilTheyAppear) {
  files_.remove("memory.max");
  files_.remove("memory.high");
  CgroupGroup group = v2();
  EXPECT_EQ(group.read().value(), std::nullopt);
  files_.write("memory.max", "1000\n");
  EXPECT_EQ(group.read()->value().limit, Bytes(1000)) << "the controller was switched on";
}

TEST_F(CgroupGroupTest, AV1GroupWithoutItsLimitFileIsAnError) {
  CgroupGroup group({"/a", files_.root()}, CgroupVersion::kV1);
  EXPECT_FALSE(group.read().has_value());
}

TEST_F(CgroupGroupTest, AFileThatCannotBeParsedIsAnErrorThatNamesIt) {
  for (const std::string_view name :
       {"memory.max", "memory.high", "memory.current", "memory.stat"}) {
    const FakeGroup fake;
    fake.files.write(name, "nonsense\n");
    CgroupGroup group = fake.open();
    const auto headroom = group.read();
    ASSERT_FALSE(headroom.has_value()) << name;
    EXPECT_NE(headroom.error().message.find(fake.files.at(name)), std::string::npos)
        << headroom.error().message;
  }
}

TEST_F(CgroupGroupTest, ALimitWithoutAUseIsAnErrorAndNotAnUnusedGroup) {
  for (const std::string_view name : {"memory.current", "memory.stat"}) {
    const FakeGroup fake;
    fake.files.remove(name);
    CgroupGroup group = fake.open();
    EXPECT_FALSE(group.read().has_value()) << name;
  }
}

TEST_F(CgroupGroupTest, V1FilesAreReadByTheirOwnNames) {
  FakeKernelFiles files;
  files.write("memory.limit_in_bytes", "1000\n");
  files.write("memory.usage_in_bytes", "600\n");
  files.write("memory.stat", "total_inactive_file 100\ntotal_active_file 50\n");
  CgroupGroup group({"/a", files.root()}, CgroupVersion::kV1);
  EXPECT_EQ(group.read()->value().available, Bytes(550));
  files.write("memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(group.read().value(), std::nullopt);
}

}  // namespace
}  // namespace pensieve::memory
