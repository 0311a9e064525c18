// A real worker process in a memory group of a fake kernel: who is put where, when, and what the
// link says of it.
#include <signal.h>

#include <gtest/gtest.h>

#include "worker/testing/fake_group_files.h"
#include "worker/testing/io_driver.h"
#include "worker/testing/stand_in.h"
#include "worker/testing/temp_folder.h"
#include "worker/worker_groups.h"
#include "worker/worker_link.h"

namespace pensieve::worker {
namespace {

constexpr const char* kParent = "/cg/service";

class WorkerConfinementTest : public testing::Test {
 protected:
  WorkerConfinementTest() {
    files_->add_group("/cg");
    files_->add_group(kParent);
  }
  ~WorkerConfinementTest() override {
    if (link_) link_->kill(WorkerEnd::kKilled);
    link_.reset();
    EXPECT_TRUE(io_.run_dry()) << "a coroutine of the link never ends";
  }

  LinkFactory in_groups() {
    auto groups = WorkerGroups::open(files_, {memory::CgroupVersion::kV1, {{"/service", kParent}}},
                                     {100, [](pid_t) { return true; }});
    EXPECT_TRUE(groups) << groups.error().message;
    return WorkerLink::starting_in(*std::move(groups), "");
  }
  void start(const LinkFactory& factory) {
    auto link =
        factory(io_.io.get_executor(), io_.clock, real_worker(folder_.write("m.script", "")),
                [this](const WorkerGone& gone) { ends_.push_back(gone); });
    ASSERT_TRUE(link) << link.error().message;
    link_ = *std::move(link);
    ASSERT_TRUE(io_.run_until([&] { return link_->hello() != nullptr; }));
  }
  WorkerEnd end() {
    EXPECT_TRUE(io_.run_until([&] { return !ends_.empty(); }));
    return ends_.empty() ? WorkerEnd::kClean : ends_.front().end;
  }
  std::string in_group(const std::string& file) {
    return files_->text(std::string(kParent) + "/pensieve-worker-100-2/" + file);
  }

  TempFolder folder_;
  IoDriver io_;
  std::shared_ptr<FakeGroupFiles> files_ =
      std::make_shared<FakeGroupFiles>(memory::CgroupVersion::kV1);
  std::shared_ptr<Link> link_;
  std::vector<WorkerGone> ends_;
};

TEST_F(WorkerConfinementTest, TheWorkerIsInItsGroupBeforeAnythingIsAskedOfIt) {
  start(in_groups());
  const std::string group = std::string(kParent) + "/pensieve-worker-100-2";
  EXPECT_EQ(files_->members(group), std::vector{std::to_string(link_->pid())});
  EXPECT_EQ(in_group("memory.limit_in_bytes"), "536870912\n");
  link_->set_reserved(1_GiB);
  EXPECT_EQ(in_group("memory.limit_in_bytes"), "1207959552\n");
}

TEST_F(WorkerConfinementTest, ItsProtectionsAreTheLimitAndWhatItSaysOfItself) {
  start(in_groups());
  link_->set_reserved(1_GiB);
  const Protections all = link_->protections();
  ASSERT_EQ(all.size(), 1 + link_->hello()->protections.size());
  EXPECT_EQ(all[0], (Protection{"memory limit", true,
                                "1.12GB, cgroup v1 /service/pensieve-worker-100-2", ""}));
  EXPECT_EQ(all[1].name, "first to be killed");
}

TEST_F(WorkerConfinementTest, AKillCountsAsTheKernelsWhereItsOwnGroupCountedOne) {
  start(in_groups());
  files_->set(std::string(kParent) + "/pensieve-worker-100-2/memory.oom_control",
              "under_oom 0\noom_kill 1\n");
  ::kill(link_->pid(), SIGKILL);
  EXPECT_EQ(end(), WorkerEnd::kKilledByKernel);
}

TEST_F(WorkerConfinementTest, AKillWithoutACountInItsGroupIsSomebodyElses) {
  start(in_groups());
  ::kill(link_->pid(), SIGKILL);
  EXPECT_EQ(end(), WorkerEnd::kKilled);
}

TEST_F(WorkerConfinementTest, WithoutGroupsTheWorkerRunsAndTheReasonIsSaid) {
  start(WorkerLink::starting_in(nullptr, "no memory groups here"));
  link_->set_reserved(1_GiB);
  const Protection limit = link_->protections().front();
  EXPECT_FALSE(limit.holds);
  EXPECT_EQ(limit.detail, "no memory groups here");
  EXPECT_NE(limit.remedy.find("Delegate=yes"), std::string::npos);
}

TEST_F(WorkerConfinementTest, AGroupThatCannotBeMadeOrEnteredIsNoReasonNotToStart) {
  const LinkFactory factory = in_groups();
  files_->refuse(std::string(kParent) + "/pensieve-worker-100-2", "No space left on device");
  start(factory);
  EXPECT_FALSE(link_->protections().front().holds);
  EXPECT_NE(link_->protections().front().detail.find("No space left"), std::string::npos);
  link_->kill(WorkerEnd::kKilled);
  end();
  link_.reset();
  ends_.clear();
  files_->refuse(std::string(kParent) + "/pensieve-worker-100-3/cgroup.procs", "Invalid argument");
  start(factory);
  EXPECT_FALSE(link_->protections().front().holds);
  EXPECT_FALSE(files_->has_group(std::string(kParent) + "/pensieve-worker-100-3"))
      << "a group that nobody is in is removed";
}

TEST_F(WorkerConfinementTest, ALimitThatCannotBeSetLeavesTheWorkerAlone) {
  start(in_groups());
  const std::string path =
      std::string(kParent) + "/pensieve-worker-100-2/memory.memsw.limit_in_bytes";
  files_->refuse(path, "Device or resource busy");
  link_->set_reserved(1_GiB);
  EXPECT_EQ(in_group("memory.limit_in_bytes"), "536870912\n");
  EXPECT_TRUE(link_->usable());
}

}  // namespace
}  // namespace pensieve::worker
