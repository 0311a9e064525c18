#include "memory/cgroup_place.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

constexpr std::string_view kV2Mount =
    "25 31 0:22 / /proc rw - proc proc rw\n"
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr std::string_view kHybridMounts =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

/// "name=folder" of each group, innermost first; "error" or "none".
std::vector<std::string> located(std::string_view membership, std::string_view mountinfo) {
  const Result<std::optional<CgroupPlace>> place = locate_memory_cgroup(membership, mountinfo);
  if (!place) return {"error"};
  if (!*place) return {"none"};
  std::vector<std::string> groups;
  for (const CgroupFolder& group : (*place)->groups) {
    groups.push_back(group.name + "=" + group.folder);
  }
  return groups;
}

using Groups = std::vector<std::string>;

TEST(CgroupPlaceTest, EveryEnclosingGroupUpToTheMountsRootCounts) {
  EXPECT_EQ(located("0::/user.slice/a/b\n", kV2Mount),
            (Groups{"/user.slice/a/b=/sys/fs/cgroup/user.slice/a/b",
                    "/user.slice/a=/sys/fs/cgroup/user.slice/a",
                    "/user.slice=/sys/fs/cgroup/user.slice", "/=/sys/fs/cgroup"}));
  EXPECT_EQ(located("0::/\n", kV2Mount), (Groups{"/=/sys/fs/cgroup"}));
}

TEST(CgroupPlaceTest, OnAHybridMachineTheHierarchyThatHasTheMemoryControllerCounts) {
  const auto place = locate_memory_cgroup("4:cpu:/x\n3:memory:/a\n0::/b\n", kHybridMounts);
  ASSERT_TRUE(place.has_value() && place->has_value());
  EXPECT_EQ((*place)->version, CgroupVersion::kV1);
  EXPECT_EQ(located("4:cpu:/x\n3:memory:/a\n0::/b\n", kHybridMounts),
            (Groups{"/a=/sys/fs/cgroup/memory/a", "/=/sys/fs/cgroup/memory"}));
  EXPECT_EQ(located("4:cpu:/x\n0::/b\n", kHybridMounts),
            (Groups{"/b=/sys/fs/cgroup/unified/b", "/=/sys/fs/cgroup/unified"}));
}

TEST(CgroupPlaceTest, ControllersThatShareAHierarchyAreFound) {
  EXPECT_EQ(
      located("3:cpu,memory:/a\n", "35 31 0:32 / /cg rw - cgroup cgroup rw,seclabel,cpu,memory\n"),
      (Groups{"/a=/cg/a", "/=/cg"}));
  EXPECT_EQ(located("3:memoryx:/a\n", kHybridMounts), (Groups{"none"}));
}

TEST(CgroupPlaceTest, AContainersMountShowsItsOwnGroupAsTheRoot) {
  const std::string_view bind =
      "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup c rw,memory\n";
  EXPECT_EQ(located("3:memory:/docker/abc\n", bind), (Groups{"/docker/abc=/sys/fs/cgroup/memory"}));
  EXPECT_EQ(located("3:memory:/docker/abc/child\n", bind),
            (Groups{"/docker/abc/child=/sys/fs/cgroup/memory/child",
                    "/docker/abc=/sys/fs/cgroup/memory"}));
}

TEST(CgroupPlaceTest, AGroupThatNoMountShowsIsAnErrorAndNotWithoutLimits) {
  const std::string_view bind = "35 31 0:32 /docker/abc /cg ro - cgroup2 cgroup2 rw\n";
  EXPECT_EQ(located("0::/docker/other\n", bind), (Groups{"error"}));
  EXPECT_EQ(located("0::/docker/abcd\n", bind), (Groups{"error"})) << "a prefix of the name only";
  EXPECT_EQ(located("0::/\n", bind), (Groups{"error"}));
  EXPECT_EQ(located("0::/../sibling\n", kV2Mount), (Groups{"error"}));
  EXPECT_EQ(located("0::/\n", "35 31 0:32 /../.. /cg ro - cgroup2 cgroup2 rw\n"),
            (Groups{"error"}));
  EXPECT_EQ(located("0::/a\n", ""), (Groups{"error"}));
  EXPECT_EQ(located("3:memory:/a\n", kV2Mount), (Groups{"error"})) << "a mount of the other kind";
}

TEST(CgroupPlaceTest, TheMountThatShowsTheMostEnclosingGroupsIsUsed) {
  const std::string both =
      "35 31 0:32 /a /narrow ro - cgroup2 cgroup2 rw\n"
      "36 31 0:32 / /wide ro - cgroup2 cgroup2 rw\n"
      "37 31 0:32 /a/b /narrower ro - cgroup2 cgroup2 rw\n";
  EXPECT_EQ(located("0::/a/b\n", both), (Groups{"/a/b=/wide/a/b", "/a=/wide/a", "/=/wide"}));
}

TEST(CgroupPlaceTest, AMountThatIsHiddenUnderAnotherIsNotUsed) {
  const std::string stacked =
      "35 31 0:32 / /cg ro - cgroup2 cgroup2 rw\n"
      "36 31 0:32 /a /cg ro - cgroup2 cgroup2 rw\n";
  EXPECT_EQ(located("0::/a\n", stacked), (Groups{"/a=/cg"}));
}

TEST(CgroupPlaceTest, NamesWithBlanksAndColonsAreUnderstood) {
  EXPECT_EQ(located("0::/a b:c\n", "35 31 0:32 / /my\\040cg rw - cgroup2 cgroup2 rw\n"),
            (Groups{"/a b:c=/my cg/a b:c", "/=/my cg"}));
}

TEST(CgroupPlaceTest, AKernelWithoutMemoryCgroupsHasNoPlace) {
  EXPECT_EQ(located("", kV2Mount), (Groups{"none"}));
  EXPECT_EQ(located("4:cpu:/x\n1:name=systemd:/\n", kHybridMounts), (Groups{"none"}));
}

TEST(CgroupPlaceTest, BrokenLinesAreNotTakenForOthers) {
  EXPECT_EQ(located("nonsense\n::\n0:\n0::/a\n", std::string("x\n - \n\n") + std::string(kV2Mount)),
            (Groups{"/a=/sys/fs/cgroup/a", "/=/sys/fs/cgroup"}));
}

}  // namespace
}  // namespace pensieve::memory
