#include "worker/oom_kill_counter.h"

#include <gtest/gtest.h>

#include "memory/testing/fake_kernel_files.h"

namespace pensieve::worker {
namespace {

class OomKillCounterTest : public testing::Test {
 protected:
  std::optional<std::uint64_t> count_in(std::string_view text) {
    files_.write("events", text);
    return OomKillCounter(files_.at("events")).read();
  }

  memory::FakeKernelFiles files_;
};

TEST_F(OomKillCounterTest, ReadsTheGroupsEventsOfCgroupV2) {
  EXPECT_EQ(count_in("low 0\nhigh 5\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"), 2U);
}

TEST_F(OomKillCounterTest, ReadsTheGroupsControlFileOfCgroupV1) {
  EXPECT_EQ(count_in("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"), 12U);
}

TEST_F(OomKillCounterTest, ReadsTheMachinesStatistics) {
  EXPECT_EQ(count_in("nr_free_pages 123456\npgfault 99999999999\noom_kill 4\nzone_reclaim 0\n"),
            4U);
}

TEST_F(OomKillCounterTest, WithoutTheCounterItIsUnknownAndNotZero) {
  EXPECT_EQ(count_in("low 0\noom 3\n"), std::nullopt);
  EXPECT_EQ(count_in(""), std::nullopt);
  EXPECT_EQ(count_in("oom_kill many\n"), std::nullopt);
  files_.remove("events");
  EXPECT_EQ(OomKillCounter(files_.at("events")).read(), std::nullopt);
}

TEST_F(OomKillCounterTest, FollowsTheFile) {
  files_.write("events", "oom_kill 1\n");
  const OomKillCounter counter(files_.at("events"));
  EXPECT_EQ(counter.read(), 1U);
  files_.write("events", "oom_kill 2\n");
  EXPECT_EQ(counter.read(), 2U);
}

#if defined(__linux__)
TEST_F(OomKillCounterTest, FindsACounterForThisProcess) {
  EXPECT_TRUE(OomKillCounter().read());
}
#endif

}  // namespace
}  // namespace pensieve::worker
