// Work for the disk: where it runs, in which order, and what it leaves on the disk.
#include "gateway/disk_thread.h"

#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;

class DiskThreadTest : public testing::Test {
 protected:
  void begin(std::function<Result<void>()> work) {
    asio::co_spawn(io_, run(std::move(work)), asio::detached);
  }
  asio::awaitable<void> run(std::function<Result<void>()> work) {
    const Result<void> result = co_await disk_.run(std::move(work));
    came_back_on_.push_back(std::this_thread::get_id());
    results_.push_back(result ? "" : result.error().message);
  }
  static std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TemporaryFolder folder_;
  asio::io_context io_{1};
  DiskThread disk_{io_.get_executor()};
  std::vector<std::thread::id> came_back_on_;
  std::vector<std::string> results_;
};

TEST_F(DiskThreadTest, TheIoThreadGoesOnWhileTheDiskHangs) {
  std::promise<void> disk_answers;
  std::thread::id worked_on;
  begin([&]() -> Result<void> {
    worked_on = std::this_thread::get_id();
    disk_answers.get_future().wait();
    return {};
  });
  // Only a handler that runs on the io thread meanwhile lets the disk go on.
  asio::post(io_, [&] { asio::post(io_, [&] { disk_answers.set_value(); }); });
  io_.run();
  ASSERT_EQ(results_.size(), 1U);
  EXPECT_NE(worked_on, std::this_thread::get_id());
  EXPECT_EQ(came_back_on_[0], std::this_thread::get_id());
}

TEST_F(DiskThreadTest, OnePieceFollowsAnotherAndEachHasItsResult) {
  std::vector<int> order;  // Of the other thread alone, until the io context has run dry.
  for (int i = 0; i < 20; ++i) {
    begin([&order, i]() -> Result<void> {
      order.push_back(i);
      if (i % 2 == 1) return fail(Code::kUnavailable, std::to_string(i));
      return {};
    });
  }
  io_.run();
  ASSERT_EQ(order.size(), 20U);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
    EXPECT_EQ(results_[static_cast<std::size_t>(i)], i % 2 == 1 ? std::to_string(i) : "");
  }
}

TEST_F(DiskThreadTest, WorkThatThrowsHasFailedAndTheNextGoesOn) {
  begin([]() -> Result<void> { throw std::runtime_error("no such luck"); });
  begin([]() -> Result<void> { return {}; });
  io_.run();
  EXPECT_EQ(results_, (std::vector<std::string>{"no such luck", ""}));
}

TEST_F(DiskThreadTest, AFileIsReplacedAsAWholeAndNothingElseStays) {
  const std::string path = folder_.at("file");
  ASSERT_TRUE(replace_durably(path, "one"));
  ASSERT_TRUE(replace_durably(path, "two"));
  EXPECT_EQ(text_of(path), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(path).parent_path()), {}), 1);
  EXPECT_EQ(fs::status(path).permissions() & (fs::perms::group_all | fs::perms::others_all),
            fs::perms::none);
}

TEST_F(DiskThreadTest, WhatFailsSaysWhereAndLeavesTheOldFile) {
  const std::string path = folder_.at("file");
  ASSERT_TRUE(replace_durably(path, "old"));
  fs::create_directory(path + ".new");  // In the way.
  const Result<void> replaced = replace_durably(path, "new");
  ASSERT_FALSE(replaced);
  EXPECT_NE(replaced.error().message.find("file.new"), std::string::npos);
  EXPECT_EQ(text_of(path), "old");
  EXPECT_FALSE(sync_path(folder_.at("nothing")));
}

}  // namespace
}  // namespace pensieve::gateway
