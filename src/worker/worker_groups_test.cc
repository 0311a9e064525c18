// Memory groups for workers, on a fake kernel; real_worker_groups_test.cc asks the real one.
#include "worker/worker_groups.h"

#include <set>

#include <gtest/gtest.h>

#include "worker/testing/fake_group_files.h"

namespace pensieve::worker {
namespace {

using memory::CgroupVersion;
using Texts = std::vector<std::string>;

constexpr const char* kParent = "/cg/service";

std::string leaf(const std::string& name) {
  return std::string(kParent) + "/" + name;
}

class WorkerGroupsTest : public testing::Test {
 protected:
  /// A kernel with one group in which process 100, the gateway, is.
  void use(CgroupVersion version) {
    files_ = std::make_shared<FakeGroupFiles>(version);
    place_ = {version, {{"/service", kParent}, {"/", "/cg"}}};
    files_->add_group("/cg");
    files_->add_group(kParent);
    files_->put("100", kParent);
  }
  Result<std::unique_ptr<WorkerGroups>> open() {
    return WorkerGroups::open(files_, place_,
                              {100, [this](pid_t pid) { return running_.contains(pid); }});
  }
  std::unique_ptr<WorkerGroups> opened() {
    auto groups = open();
    EXPECT_TRUE(groups) << groups.error().message;
    return groups ? std::move(*groups) : nullptr;
  }
  static std::unique_ptr<WorkerGroup> made_by(WorkerGroups& groups) {
    auto group = groups.make();
    EXPECT_TRUE(group) << group.error().message;
    return group ? std::move(*group) : nullptr;
  }

  std::shared_ptr<FakeGroupFiles> files_;
  memory::CgroupPlace place_;
  std::set<pid_t> running_{100};
};

TEST(LimitForTest, IsTheReservationAndAnEighthWithinBounds) {
  EXPECT_EQ(limit_for(Bytes()), 512_MiB) << "nothing reserved yet: for reading a header";
  EXPECT_EQ(limit_for(Bytes(1)), Bytes((128U << 20) + 1));
  EXPECT_EQ(limit_for(1024_MiB), 1152_MiB) << "an eighth is just 128 MiB";
  EXPECT_EQ(limit_for(1032_MiB), 1161_MiB);
  EXPECT_EQ(limit_for(16_GiB), 18_GiB);
  EXPECT_EQ(limit_for(64_GiB), 66_GiB);
  EXPECT_EQ(limit_for(Bytes(UINT64_MAX)), Bytes(UINT64_MAX));
}

// --- version 1
// ------------------------------------------------------------------------------------

TEST_F(WorkerGroupsTest, V1MakesAGroupBelowTheGatewaysOwnAndRemovesItWithTheObject) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  {
    const auto group = made_by(*groups);
    EXPECT_EQ(group->name(), "/service/pensieve-worker-100-2") << "1 was the trial at open()";
    EXPECT_EQ(files_->text(leaf("pensieve-worker-100-2/memory.limit_in_bytes")), "536870912\n");
    EXPECT_EQ(files_->text(leaf("pensieve-worker-100-2/memory.memsw.limit_in_bytes")),
              "536870912\n");
    EXPECT_EQ(files_->text(leaf("pensieve-worker-100-2/memory.swappiness")), "0\n");
    ASSERT_TRUE(group->admit(200));
    EXPECT_EQ(files_->members(leaf("pensieve-worker-100-2")), Texts{"200"});
    EXPECT_EQ(files_->members(kParent), Texts{"100"}) << "the gateway stays where it was";
    files_->put("200", "");  // It ends.
  }
  EXPECT_FALSE(files_->has_group(leaf("pensieve-worker-100-2")));
}

TEST_F(WorkerGroupsTest, V1NeverPutsTheLimitOfMemoryAboveThatOfMemoryAndSwap) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const auto group = made_by(*groups);
  files_->writes.clear();
  ASSERT_TRUE(group->set_reserved(1_GiB));
  EXPECT_EQ(files_->writes,
            (Texts{"memory.memsw.limit_in_bytes 1207959552", "memory.limit_in_bytes 1207959552"}));
  files_->writes.clear();
  ASSERT_TRUE(group->set_reserved(Bytes(1)));
  EXPECT_EQ(files_->writes,
            (Texts{"memory.limit_in_bytes 134217729", "memory.memsw.limit_in_bytes 134217729"}));
}

TEST_F(WorkerGroupsTest, V1WithoutAccountsOfSwapHasTheOneLimit) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const auto group = made_by(*groups);
  files_->drop_file(leaf("pensieve-worker-100-2/memory.memsw.limit_in_bytes"));
  EXPECT_TRUE(group->set_reserved(1_GiB));
  EXPECT_EQ(group->limit(), 1152_MiB);
}

TEST_F(WorkerGroupsTest, V1WhereChildrenEscapeTheLimitIsRefused) {
  use(CgroupVersion::kV1);
  files_->set(leaf("memory.use_hierarchy"), "0\n");
  const auto groups = open();
  ASSERT_FALSE(groups);
  EXPECT_NE(groups.error().message.find("use_hierarchy"), std::string::npos);
  // At the root there is no limit to escape from.
  place_.groups.erase(place_.groups.begin());
  files_->set("/cg/memory.use_hierarchy", "0\n");
  EXPECT_TRUE(open());
}

TEST_F(WorkerGroupsTest, WhereGroupsMayNotBeMadeThatIsSaidAtOnce) {
  use(CgroupVersion::kV1);
  files_->refuse(leaf("*"), "Permission denied");
  const auto groups = open();
  ASSERT_FALSE(groups);
  EXPECT_NE(groups.error().message.find("Permission denied"), std::string::npos);
}

// --- the limit
// ------------------------------------------------------------------------------------

TEST_F(WorkerGroupsTest, TheLimitFollowsTheReservationUpAndDown) {
  for (const CgroupVersion version : {CgroupVersion::kV1, CgroupVersion::kV2}) {
    use(version);
    const auto groups = opened();
    const auto group = made_by(*groups);
    EXPECT_EQ(group->limit(), kPlanningLimit);
    ASSERT_TRUE(group->set_reserved(2_GiB));
    EXPECT_EQ(group->limit(), limit_for(2_GiB));
    ASSERT_TRUE(group->set_reserved(1_GiB));
    EXPECT_EQ(group->limit(), limit_for(1_GiB));
    files_->writes.clear();
    ASSERT_TRUE(group->set_reserved(1_GiB));
    EXPECT_TRUE(files_->writes.empty()) << "what is right already is not written again";
  }
}

TEST_F(WorkerGroupsTest, ALimitIsNeverLoweredToWhatTheWorkerNeeds) {
  use(CgroupVersion::kV2);
  const auto groups = opened();
  const auto group = made_by(*groups);
  ASSERT_TRUE(group->set_reserved(2_GiB));
  const std::string folder = leaf("pensieve-worker-100-2");
  files_->set_use(folder, limit_for(1_GiB).count(), 0);
  const auto lowered = group->set_reserved(1_GiB);
  ASSERT_FALSE(lowered) << "the kernel would kill it";
  EXPECT_EQ(group->limit(), limit_for(2_GiB));
  // One byte less is needed: it fits.
  files_->set_use(folder, limit_for(1_GiB).count() - 1, 0);
  EXPECT_TRUE(group->set_reserved(1_GiB));
  EXPECT_EQ(group->limit(), limit_for(1_GiB));
}

TEST_F(WorkerGroupsTest, FileCacheIsDroppedInSteps) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const auto group = made_by(*groups);
  ASSERT_TRUE(group->set_reserved(2_GiB));
  const std::string folder = leaf("pensieve-worker-100-2");
  const std::uint64_t target = limit_for(1_GiB).count();
  files_->set_use(folder, target + (100U << 20), 1U << 30);
  ASSERT_TRUE(group->set_reserved(1_GiB));
  EXPECT_EQ(group->limit(), Bytes(target + (36U << 20))) << "64 MiB at a time";
  files_->set_use(folder, target + (36U << 20), 1U << 30);
  ASSERT_TRUE(group->set_reserved(1_GiB));
  EXPECT_EQ(group->limit(), Bytes(target));
}

TEST_F(WorkerGroupsTest, AUseThatCannotBeReadLeavesTheLimitAsItIs) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const auto group = made_by(*groups);
  ASSERT_TRUE(group->set_reserved(2_GiB));
  const std::string folder = leaf("pensieve-worker-100-2");
  files_->set(folder + "/memory.usage_in_bytes", "many\n");
  EXPECT_FALSE(group->set_reserved(1_GiB));
  files_->drop_file(folder + "/memory.stat");
  EXPECT_FALSE(group->set_reserved(1_GiB));
  EXPECT_EQ(group->limit(), limit_for(2_GiB));
  EXPECT_TRUE(group->set_reserved(3_GiB)) << "raising needs no reading";
}

TEST_F(WorkerGroupsTest, ALimitThatTheKernelRefusesIsNotTakenForSet) {
  use(CgroupVersion::kV2);
  const auto groups = opened();
  const auto group = made_by(*groups);
  files_->refuse(leaf("pensieve-worker-100-2/memory.max"), "Device or resource busy");
  EXPECT_FALSE(group->set_reserved(2_GiB));
  EXPECT_EQ(group->limit(), kPlanningLimit);
}

TEST_F(WorkerGroupsTest, KillsAreCountedFromTheGroupsOwnFile) {
  use(CgroupVersion::kV2);
  const auto groups = opened();
  const auto group = made_by(*groups);
  const std::string events = leaf("pensieve-worker-100-2/memory.events");
  EXPECT_EQ(group->oom_kills(), 0U);
  files_->set(events, "max 3\noom 1\noom_kill 1\noom_group_kill 1\n");
  EXPECT_EQ(group->oom_kills(), 1U);
  files_->drop_file(events);
  EXPECT_EQ(group->oom_kills(), std::nullopt) << "unknown, and not zero";
}

TEST_F(WorkerGroupsTest, AProcessThatIsNotInAfterwardsIsAnError) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const auto group = made_by(*groups);
  files_->refuse(leaf("pensieve-worker-100-2/cgroup.procs"), "No such process");
  EXPECT_FALSE(group->admit(200));
}

// --- version 2, delegated
// -------------------------------------------------------------------------

TEST_F(WorkerGroupsTest, V2TheGatewayMovesIntoALeafAndGivesTheControllerToBoth) {
  use(CgroupVersion::kV2);
  {
    const auto groups = opened();
    EXPECT_EQ(files_->members(leaf("pensieve-gateway-100")), Texts{"100"});
    EXPECT_TRUE(files_->members(kParent).empty());
    EXPECT_EQ(files_->text(leaf("cgroup.subtree_control")), "memory\n");
    const auto group = made_by(*groups);
    const std::string folder = leaf("pensieve-worker-100-2");
    EXPECT_EQ(files_->text(folder + "/memory.max"), "536870912\n");
    EXPECT_EQ(files_->text(folder + "/memory.swap.max"), "0\n");
    EXPECT_EQ(files_->text(folder + "/memory.oom.group"), "1\n");
    ASSERT_TRUE(group->admit(200));
    files_->put("200", "");
  }
  EXPECT_EQ(files_->members(kParent), Texts{"100"}) << "and back at its end";
  EXPECT_FALSE(files_->has_group(leaf("pensieve-gateway-100")));
  EXPECT_EQ(files_->text(leaf("cgroup.subtree_control")), "\n");
}

TEST_F(WorkerGroupsTest, V2WhereTheControllerIsGivenAlreadyNobodyMoves) {
  use(CgroupVersion::kV2);
  files_->put("100", "/cg");
  files_->set(leaf("cgroup.subtree_control"), "cpu memory\n");
  const auto groups = opened();
  EXPECT_FALSE(files_->has_group(leaf("pensieve-gateway-100")));
  EXPECT_TRUE(groups->make());
}

TEST_F(WorkerGroupsTest, V2OtherProcessesInTheGroupAreNotMoved) {
  use(CgroupVersion::kV2);
  files_->put("55", kParent);
  const auto groups = open();
  ASSERT_FALSE(groups);
  EXPECT_NE(groups.error().message.find("other processes"), std::string::npos);
  EXPECT_EQ(files_->members(kParent), (Texts{"100", "55"}));
  EXPECT_FALSE(files_->has_group(leaf("pensieve-gateway-100")));
}

TEST_F(WorkerGroupsTest, V2WithoutTheMemoryControllerChangesNothing) {
  use(CgroupVersion::kV2);
  files_->set(leaf("cgroup.controllers"), "cpu pids\n");
  const auto groups = open();
  ASSERT_FALSE(groups);
  EXPECT_NE(groups.error().message.find("controller"), std::string::npos);
  EXPECT_EQ(files_->members(kParent), Texts{"100"});
}

TEST_F(WorkerGroupsTest, V2WhereTheControllerCannotBeGivenTheGatewayMovesBack) {
  use(CgroupVersion::kV2);
  files_->refuse(leaf("cgroup.subtree_control"), "Permission denied");
  EXPECT_FALSE(open());
  EXPECT_EQ(files_->members(kParent), Texts{"100"});
  EXPECT_FALSE(files_->has_group(leaf("pensieve-gateway-100")));
}

TEST_F(WorkerGroupsTest, V2WhereTheGatewayMayNotMoveItIsWhereItWas) {
  use(CgroupVersion::kV2);
  files_->refuse(leaf("pensieve-gateway-100/cgroup.procs"), "Permission denied");
  EXPECT_FALSE(open());
  EXPECT_EQ(files_->members(kParent), Texts{"100"});
  EXPECT_FALSE(files_->has_group(leaf("pensieve-gateway-100")));
}

// --- what dead gateways have left
// -----------------------------------------------------------------

TEST_F(WorkerGroupsTest, GroupsOfDeadGatewaysAreRemovedAndNoOthers) {
  use(CgroupVersion::kV1);
  running_ = {100, 300};
  const Texts stale = {"pensieve-worker-200-1", "pensieve-gateway-200", "pensieve-worker-100-7"};
  const Texts kept = {"pensieve-worker-300-1", "pensieve-worker-200-x", "pensieve-worker--1",
                      "pensieve-worker-200",   "pensieve-other-200-1",  "session-200",
                      "pensieve-worker-0-1",   "pensieve-worker-201-1"};
  for (const std::string& name : stale) files_->add_group(leaf(name));
  for (const std::string& name : kept) files_->add_group(leaf(name));
  files_->put("999", leaf("pensieve-worker-201-1"));  // Somebody is in.
  const auto groups = opened();
  for (const std::string& name : stale) EXPECT_FALSE(files_->has_group(leaf(name))) << name;
  for (const std::string& name : kept) EXPECT_TRUE(files_->has_group(leaf(name))) << name;
}

TEST_F(WorkerGroupsTest, AGroupWhoseProcessLivedLongerThanItsObjectIsRemovedLater) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const std::string folder = leaf("pensieve-worker-100-2");
  {
    const auto group = made_by(*groups);
    ASSERT_TRUE(group->admit(200));
  }
  EXPECT_TRUE(files_->has_group(folder));
  files_->put("200", "");
  EXPECT_TRUE(groups->make());
  EXPECT_FALSE(files_->has_group(folder));
}

TEST_F(WorkerGroupsTest, AGroupWhoseProcessHasJustDiedKeepsItsCountUntilItIsRead) {
  use(CgroupVersion::kV1);
  const auto groups = opened();
  const auto group = made_by(*groups);
  ASSERT_TRUE(group->admit(200));
  files_->set(leaf("pensieve-worker-100-2/memory.oom_control"), "under_oom 0\noom_kill 1\n");
  files_->put("200", "");
  EXPECT_TRUE(groups->make());
  EXPECT_EQ(group->oom_kills(), 1U);
}

}  // namespace
}  // namespace pensieve::worker
