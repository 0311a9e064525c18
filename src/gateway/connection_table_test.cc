#include "gateway/connection_table.h"

#include <sys/resource.h>

#include <vector>

#include <gtest/gtest.h>

namespace pensieve::gateway {
namespace {

class FakeConnection final : public Connection {
 public:
  void close_when_idle() override { ++closed; }
  void abort() override { ++aborted; }

  int closed = 0;
  int aborted = 0;
};

TEST(ConnectionTable, TheLongestWaitingIsClosedForANewOneAndNoOther) {
  ConnectionTable table(2);
  FakeConnection first;
  FakeConnection second;
  table.on_waiting(first);
  EXPECT_TRUE(table.make_room());
  EXPECT_EQ(first.aborted, 0);
  table.on_waiting(second);
  EXPECT_TRUE(table.make_room());
  EXPECT_EQ(first.aborted, 1);
  EXPECT_EQ(second.aborted, 0);
  EXPECT_EQ(table.status().open, 1U);
  EXPECT_EQ(table.status().evicted, 1U);
}

TEST(ConnectionTable, WhoWasAnsweredWaitsAnewAndIsNotTheLongestAnyMore) {
  ConnectionTable table(2);
  FakeConnection first;
  FakeConnection second;
  table.on_waiting(first);
  table.on_waiting(second);
  table.on_answering(first);
  table.on_waiting(first);
  EXPECT_TRUE(table.make_room());
  EXPECT_EQ(second.aborted, 1);
  EXPECT_EQ(first.aborted, 0);
}

TEST(ConnectionTable, WhoHasNeverBroughtARequestGoesBeforeThoseWhoHave) {
  ConnectionTable table(3);
  FakeConnection served;
  FakeConnection stranger;
  FakeConnection later;
  table.on_waiting(served);
  table.on_answering(served);
  table.on_waiting(served);
  table.on_waiting(stranger);
  table.on_waiting(later);
  EXPECT_TRUE(table.evict());
  EXPECT_EQ(stranger.aborted, 1);
  EXPECT_TRUE(table.evict());
  EXPECT_EQ(later.aborted, 1);
  EXPECT_EQ(served.aborted, 0);
  EXPECT_TRUE(table.evict());
  EXPECT_EQ(served.aborted, 1);
}

TEST(ConnectionTable, AStrangerThatStillWaitsStaysOne) {
  ConnectionTable table(2);
  FakeConnection stranger;
  FakeConnection served;
  table.on_waiting(served);
  table.on_answering(served);
  table.on_waiting(served);
  table.on_waiting(stranger);
  table.on_waiting(stranger);
  EXPECT_TRUE(table.evict());
  EXPECT_EQ(stranger.aborted, 1);
}

TEST(ConnectionTable, WhereAllAreBeingAnsweredNobodyIsClosedAndTheNewOneIsRefused) {
  ConnectionTable table(1);
  FakeConnection only;
  table.on_answering(only);
  EXPECT_FALSE(table.make_room());
  EXPECT_EQ(only.aborted, 0);
  EXPECT_EQ(table.status().refused, 1U);
  table.on_end(only);
  EXPECT_TRUE(table.make_room());
  EXPECT_EQ(table.status().open, 0U);
}

TEST(ConnectionTable, AnEvictedConnectionMayStillReportWhatItIsAt) {
  ConnectionTable table(1);
  FakeConnection only;
  table.on_waiting(only);
  EXPECT_TRUE(table.evict());
  EXPECT_FALSE(table.evict());
  table.on_answering(only);  // Its request had come just before.
  EXPECT_EQ(table.status().open, 1U);
  table.on_end(only);
  table.on_end(only);
  EXPECT_EQ(table.status().open, 0U);
}

TEST(ConnectionTable, AllOfThemAreVisitedAlsoWhereTheyEndMeanwhile) {
  ConnectionTable table(3);
  std::vector<FakeConnection> all(3);
  table.on_waiting(all[0]);
  table.on_answering(all[1]);
  table.on_waiting(all[2]);
  table.for_each([&table](Connection& each) {
    each.close_when_idle();
    table.on_end(each);
  });
  for (const FakeConnection& each : all) EXPECT_EQ(each.closed, 1);
  EXPECT_EQ(table.status().open, 0U);
}

class DescriptorLimit : public testing::Test {
 protected:
  DescriptorLimit() { ::getrlimit(RLIMIT_NOFILE, &before_); }
  ~DescriptorLimit() override { ::setrlimit(RLIMIT_NOFILE, &before_); }
  void set(rlim_t descriptors) {
    const rlimit limit{descriptors, before_.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }

 private:
  rlimit before_{};
};

TEST_F(DescriptorLimit, ConnectionsLeaveDescriptorsForEverythingElse) {
  set(100);
  EXPECT_EQ(connections_that_fit(2048), 52U);
  EXPECT_EQ(connections_that_fit(52), 52U);
  EXPECT_EQ(connections_that_fit(51), 51U);
}

TEST_F(DescriptorLimit, AFewConnectionsAreServedHoweverLowTheLimit) {
  set(48);
  EXPECT_EQ(connections_that_fit(2048), 8U);
  EXPECT_EQ(connections_that_fit(2), 2U);
}

}  // namespace
}  // namespace pensieve::gateway
