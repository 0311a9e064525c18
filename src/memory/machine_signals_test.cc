// Signals from trees of files that look like the kernel's, and from this kernel.
#include "memory/machine_signals.h"

#include <string>
#include <string_view>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/testing/fake_kernel_files.h"
#include "memory/testing/real_cgroup.h"

namespace pensieve::memory {
namespace {

std::string pressure(std::string_view full) {
  return fmt::format(
      "some avg10=50.00 avg60=0.00 avg300=0.00 total=9\n"
      "full avg10={} avg60=0.00 avg300=0.00 total=7\n",
      full);
}

class MachineSignalsTest : public testing::Test {
 protected:
  MachineSignalsTest() {
    files_.write("mountinfo", fmt::format("1 0 0:1 / {} rw - cgroup2 cgroup2 rw\n"
                                          "2 0 0:2 / {} rw - cgroup cgroup rw,memory\n",
                                          files_.at("v2"), files_.at("v1")));
    files_.write("self", "0::/a/b\n");
    files_.write("pressure", pressure("3.00"));
    files_.write("vmstat", "pswpin_other 5\npswpin 42\npswpout 9\n");
    files_.write("v2/cgroup.procs", "");
    make_v2("a");
    make_v2("a/b");
  }

  void make_v2(std::string_view group) {
    files_.write(fmt::format("v2/{}/cgroup.type", group), "domain\n");
    files_.write(fmt::format("v2/{}/cgroup.procs", group), "");
  }

  MachineSignals open() {
    return MachineSignals(
        {files_.at("self"), files_.at("mountinfo"), files_.at("pressure"), files_.at("vmstat")});
  }

  FakeKernelFiles files_;
};

TEST_F(MachineSignalsTest, StallsOfOurOwnGroupComeFirst) {
  files_.write("v2/a/b/memory.pressure", pressure("11.00"));
  const RawPressure raw = open().read().pressure->value();
  EXPECT_DOUBLE_EQ(raw.pressure.full.avg10_percent, 11);
  EXPECT_EQ(raw.scope, Scope::kOwn);
  EXPECT_EQ(raw.where, "cgroup /a/b");
}

TEST_F(MachineSignalsTest, AroundTheLeafThatAGatewayMakesStandsOurGroup) {
  make_v2("a/b/pensieve-gateway-17");
  files_.write("self", "0::/a/b/pensieve-gateway-17\n");
  files_.write("v2/a/b/memory.pressure", pressure("11.00"));
  files_.write("v2/a/b/pensieve-gateway-17/memory.pressure", pressure("0.00"));
  EXPECT_EQ(open().read().pressure->value().where, "cgroup /a/b");
}

TEST_F(MachineSignalsTest, WithoutAGroupThatShowsThemTheMachinesCountAsTheMachines) {
  const RawPressure raw = open().read().pressure->value();
  EXPECT_DOUBLE_EQ(raw.pressure.full.avg10_percent, 3);
  EXPECT_EQ(raw.scope, Scope::kMachine);
  EXPECT_EQ(raw.where, "machine");
}

TEST_F(MachineSignalsTest, TheRootOfTheWholeHierarchyIsTheMachine) {
  files_.write("self", "0::/\n");
  files_.write("v2/memory.pressure", pressure("99.00"));
  EXPECT_EQ(open().read().pressure->value().scope, Scope::kMachine);
  // Inside a container the root that we see is a group like others.
  files_.write("v2/cgroup.type", "domain\n");
  EXPECT_EQ(open().read().pressure->value().scope, Scope::kOwn);
}

TEST_F(MachineSignalsTest, AKernelWithoutPsiIsAKnownAbsence) {
  files_.remove("pressure");
  const RawSignals raw = open().read();
  ASSERT_TRUE(raw.pressure.has_value());
  EXPECT_EQ(*raw.pressure, std::nullopt);
}

TEST_F(MachineSignalsTest, NonsenseIsAnErrorAndNotCalm) {
  files_.write("v2/a/b/memory.pressure", "some nonsense\n");
  MachineSignals signals = open();
  EXPECT_FALSE(signals.read().pressure.has_value());
  files_.write("v2/a/b/memory.pressure", pressure("0.00"));
  EXPECT_TRUE(signals.read().pressure.has_value());
}

TEST_F(MachineSignalsTest, SwapInOfOurGroupComesBeforeTheMachines) {
  MachineSignals signals = open();
  RawSwapIn raw = signals.read().swap_in->value();
  EXPECT_EQ(raw.pages, 42U);
  EXPECT_EQ(raw.scope, Scope::kMachine);
  files_.write("v2/a/memory.stat", "anon 1\nworkingset_refault_anon 8\n");
  raw = open().read().swap_in->value();
  EXPECT_EQ(raw.pages, 8U);
  EXPECT_EQ(raw.scope, Scope::kOwn);
  EXPECT_EQ(raw.where, "cgroup /a") << "/a/b has no controller: it is charged to /a";
  files_.write("v2/a/memory.stat", "workingset_refault_anon 8\npswpin 9\n");
  EXPECT_EQ(open().read().swap_in->value().pages, 9U);
}

TEST_F(MachineSignalsTest, AKernelWithoutSwapIsAKnownAbsenceAndACutLineIsNot) {
  files_.write("vmstat", "pgfault 1\n");
  EXPECT_EQ(open().read().swap_in.value(), std::nullopt);
  files_.write("vmstat", "pswpin x\n");
  EXPECT_FALSE(open().read().swap_in.has_value());
  files_.remove("vmstat");
  EXPECT_EQ(open().read().swap_in.value(), std::nullopt);
}

TEST_F(MachineSignalsTest, EventsAreThoseOfOurOwnLimits) {
  files_.write("v2/a/b/memory.stat", "anon 0\n");
  files_.write("v2/a/b/memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n");
  RawEvents events = open().read().events->value();
  EXPECT_EQ(events.low, 1U);
  EXPECT_EQ(events.high, 2U);
  EXPECT_EQ(events.max, 3U);
  EXPECT_EQ(events.oom, 4U);
  EXPECT_EQ(events.oom_kill, 5U);
  EXPECT_EQ(events.where, "cgroup /a/b");
  files_.write("v2/a/b/memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n");
  events = open().read().events->value();
  EXPECT_EQ(events.oom_kill, 1U) << "what workers in groups below ran into is left out";
}

TEST_F(MachineSignalsTest, EventsThatAreCutShortAreAnError) {
  files_.write("v2/a/b/memory.stat", "anon 0\n");
  files_.write("v2/a/b/memory.events", "low 1\nhigh 2\n");
  EXPECT_FALSE(open().read().events.has_value());
}

TEST_F(MachineSignalsTest, WhereV1ControlsMemoryStallsAreV2sAndEventsV1s) {
  files_.write("self", "4:memory:/m\n0::/a/b\n");
  files_.write("v2/a/b/memory.pressure", pressure("12.00"));
  files_.write("v1/m/memory.stat", "workingset_refault_anon 1\ntotal_workingset_refault_anon 6\n");
  files_.write("v1/m/memory.failcnt", "17\n");
  files_.write("v1/m/memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n");
  const RawSignals raw = open().read();
  EXPECT_EQ(raw.pressure->value().where, "cgroup /a/b");
  EXPECT_EQ(raw.swap_in->value().pages, 6U);
  EXPECT_EQ(raw.events->value().max, 17U);
  EXPECT_EQ(raw.events->value().oom_kill, 2U);
  EXPECT_TRUE(raw.events->value().waits_out_of_memory);
  EXPECT_EQ(raw.events->value().where, "cgroup /m");
}

TEST_F(MachineSignalsTest, TheV1RootIsTheMachine) {
  files_.write("self", "4:memory:/\n0::/a/b\n");
  files_.write("v1/release_agent", "");
  files_.write("v1/memory.stat", "total_workingset_refault_anon 6\n");
  files_.write("v1/memory.failcnt", "17\n");
  const RawSignals raw = open().read();
  EXPECT_EQ(raw.events.value(), std::nullopt);
  EXPECT_EQ(raw.swap_in->value().scope, Scope::kMachine);
}

TEST_F(MachineSignalsTest, AProcessThatIsMovedIsFollowed) {
  files_.write("v2/a/b/memory.pressure", pressure("11.00"));
  make_v2("c");
  files_.write("v2/c/memory.pressure", pressure("22.00"));
  MachineSignals signals = open();
  EXPECT_EQ(signals.read().pressure->value().where, "cgroup /a/b");
  files_.write("self", "0::/c\n");
  EXPECT_DOUBLE_EQ(signals.read().pressure->value().pressure.full.avg10_percent, 22);
}

TEST_F(MachineSignalsTest, AKernelWithoutCgroupsHasTheMachinesSignals) {
  files_.remove("self");
  const RawSignals raw = open().read();
  EXPECT_EQ(raw.pressure->value().scope, Scope::kMachine);
  EXPECT_EQ(raw.swap_in->value().pages, 42U);
  EXPECT_EQ(raw.events.value(), std::nullopt);
}

#if defined(__linux__)
TEST(MachineSignalsOnThisMachineTest, EverySignalIsReadOrKnownToBeAbsent) {
  MachineSignals signals;
  const RawSignals raw = signals.read();
  EXPECT_TRUE(raw.pressure.has_value()) << raw.pressure.error().message;
  EXPECT_TRUE(raw.swap_in.has_value()) << raw.swap_in.error().message;
  EXPECT_TRUE(raw.events.has_value()) << raw.events.error().message;
}

TEST(MachineSignalsOnThisMachineTest, AGroupWithALimitShowsItsEventsWhereWeMayMakeOne) {
  const Result<std::unique_ptr<RealCgroup>> group = RealCgroup::make(64_MiB);
  if (!group) {
    std::fprintf(stderr, "NOT PROVEN HERE: %s\n", group.error().message.c_str());
    EXPECT_NE(group.error().message, "");
    return;
  }
  FakeKernelFiles files;
  files.write("self", (*group)->membership());
  MachineSignals signals(
      {files.at("self"), "/proc/self/mountinfo", "/proc/pressure/memory", "/proc/vmstat"});
  const RawSignals raw = signals.read();
  ASSERT_TRUE(raw.events.has_value()) << raw.events.error().message;
  ASSERT_TRUE(raw.events->has_value());
  EXPECT_EQ((*raw.events)->where, "cgroup " + (*group)->name());
  EXPECT_EQ((*raw.events)->oom_kill, 0U);
  EXPECT_EQ(raw.swap_in->value().scope, Scope::kOwn);
}

/// Makes a v2 group beside us, also where v1 controls memory. Empty where this machine says no.
std::string make_unified_group(std::string& folder) {
  KernelText buffer;
  const auto membership = KernelFile::open("/proc/self/cgroup");
  const auto mountinfo = KernelFile::open("/proc/self/mountinfo");
  if (!membership || !mountinfo) return "";
  const auto place =
      locate_unified_cgroup(membership->read(buffer).value(), mountinfo->read_long().value());
  if (!place || !*place) return "";
  const CgroupFolder& own = (*place)->groups.front();
  const std::string leaf = fmt::format("/pensieve-psi-test-{}", ::getpid());
  if (::mkdir((own.folder + leaf).c_str(), 0755) != 0) return "";
  folder = own.folder + leaf;
  return (own.name == "/" ? "" : own.name) + leaf;
}

TEST(MachineSignalsOnThisMachineTest, AV2GroupShowsItsOwnStallsWhereWeMayMakeOne) {
  std::string folder;
  const std::string group = make_unified_group(folder);
  if (group.empty()) {
    std::fprintf(stderr, "NOT PROVEN HERE: this machine makes no v2 group for us\n");
    EXPECT_TRUE(MachineSignals().read().pressure.has_value());
    return;
  }
  const bool has_psi = ::access((folder + "/memory.pressure").c_str(), R_OK) == 0;
  FakeKernelFiles files;
  files.write("self", "0::" + group + "\n");
  MachineSignals signals(
      {files.at("self"), "/proc/self/mountinfo", "/proc/pressure/memory", "/proc/vmstat"});
  const RawSignals raw = signals.read();
  ::rmdir(folder.c_str());
  ASSERT_TRUE(raw.pressure.has_value()) << raw.pressure.error().message;
  if (has_psi) {
    EXPECT_EQ(raw.pressure->value().scope, Scope::kOwn);
    EXPECT_EQ(raw.pressure->value().where, "cgroup " + group);
    EXPECT_EQ(raw.pressure->value().pressure.full.total.count(), 0) << "nobody has been in it";
  }
}
#endif

}  // namespace
}  // namespace pensieve::memory
