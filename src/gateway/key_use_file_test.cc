// What keys have used of the day, over restarts, damaged files and full disks.
#include "gateway/key_use_file.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>

#include "base/testing/fake_clock.h"
#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

constexpr ApiKey kKey{.name = "ci", .secret = "one", .tokens_per_day_max = 100};

class KeyUseFileTest : public testing::Test {
 protected:
  /// A server's share of all this: limits, and the file that they are kept in.
  struct Life {
    explicit Life(KeyUseFileTest& test)
        : limits([&test] { return test.wall_; }),
          file(test.path_, limits, test.io_.get_executor(), test.disk_, test.clock_) {}
    KeyLimits limits;
    KeyUseFile file;
  };

  void write(std::string_view text) { std::ofstream(path_) << text; }
  std::string text() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void run_dry() {
    io_.restart();
    io_.run();
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.at("state/key-use.json");
  WallTime wall_{seconds(1'767'225'600)};  // 2026-01-01T00:00:00Z.
  FakeClock clock_;
  boost::asio::io_context io_{1};
  DiskThread disk_{io_.get_executor()};
};

TEST_F(KeyUseFileTest, WhatWasUsedTodayIsKnownToTheNextServer) {
  {
    Life first(*this);
    first.limits.spend("ci", 99);
    first.file.save();
    run_dry();
  }
  Life second(*this);
  EXPECT_TRUE(second.limits.has_tokens(kKey));
  second.limits.spend("ci", 1);
  EXPECT_FALSE(second.limits.has_tokens(kKey));
}

TEST_F(KeyUseFileTest, ANewDayBeginsAt0AlsoAfterARestart) {
  {
    Life first(*this);
    first.limits.spend("ci", 100);
    first.file.save();
    run_dry();
  }
  wall_ += std::chrono::hours(24) - seconds(1);
  EXPECT_FALSE(Life(*this).limits.has_tokens(kKey));
  wall_ += seconds(1);
  EXPECT_TRUE(Life(*this).limits.has_tokens(kKey));
}

TEST_F(KeyUseFileTest, ItHasNamesAndNumbersAlone) {
  Life life(*this);
  life.limits.spend("ci", 7);
  life.file.save();
  run_dry();
  EXPECT_EQ(text(), R"({"version":1,"day":20454,"tokens":{"ci":7}})");
}

TEST_F(KeyUseFileTest, ItIsWrittenEveryTenSecondsAtMostAndOnlyWhereSomethingWasSpent) {
  Life life(*this);
  clock_.advance(seconds(60));
  life.file.tick();
  run_dry();
  EXPECT_FALSE(fs::exists(path_));
  life.limits.spend("ci", 1);
  life.file.tick();
  run_dry();
  const std::string first = text();
  EXPECT_NE(first, "");
  life.limits.spend("ci", 1);
  clock_.advance(seconds(10) - std::chrono::nanoseconds(1));
  life.file.tick();
  run_dry();
  EXPECT_EQ(text(), first);
  clock_.advance(std::chrono::nanoseconds(1));
  life.file.tick();
  run_dry();
  EXPECT_NE(text(), first);
}

TEST_F(KeyUseFileTest, WhatIsSpentWhileItIsWrittenIsWrittenAfterIt) {
  Life life(*this);
  life.limits.spend("ci", 1);
  life.file.save();
  life.limits.spend("ci", 50);
  life.file.save();
  run_dry();
  EXPECT_NE(text().find(R"("ci":51)"), std::string::npos) << text();
}

TEST_F(KeyUseFileTest, ADamagedFileIsIgnoredAndReplaced) {
  fs::create_directories(folder_.at("state"));
  const std::string many = "{\"version\":1,\"day\":20454,\"tokens\":{\"ci\":100},\"x\":\"";
  for (const std::string& damaged :
       {std::string(), std::string("{"), std::string("[]"),
        std::string(R"({"version":2,"day":20454,"tokens":{"ci":100}})"),
        std::string(R"({"version":1,"day":20454,"tokens":{"ci":-1}})"),
        std::string(R"({"version":1,"day":20454,"tokens":{"ci":"100"}})"),
        std::string(R"({"version":1,"tokens":{"ci":100}})"), std::string(100, '\0'),
        many + std::string(KeyUseFile::kFileBytesMax, 'x') + "\"}"}) {
    write(damaged);
    Life life(*this);
    EXPECT_TRUE(life.limits.has_tokens(kKey)) << damaged.substr(0, 80);
    life.limits.spend("ci", 3);
    life.file.save();
    run_dry();
    EXPECT_NE(text().find(R"({"ci":3})"), std::string::npos) << text().substr(0, 80);
  }
}

TEST_F(KeyUseFileTest, MoreNamesThanAnybodyHasKeysAreADamagedFile) {
  const auto named = [](std::size_t names) {
    std::string all;
    for (std::size_t i = 0; i < names; ++i) {
      all += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":1";
    }
    return "{\"version\":1,\"day\":20454,\"tokens\":{" + all + "}}";
  };
  KeyLimits limits([this] { return wall_; });
  EXPECT_FALSE(limits.restore(named(KeyLimits::kNamesMax + 1)));
  EXPECT_TRUE(limits.restore(named(KeyLimits::kNamesMax)));
}

TEST_F(KeyUseFileTest, AFolderThatCannotBeWrittenRefusesNobody) {
  std::ofstream(folder_.at("state")) << "no folder";
  Life life(*this);
  life.limits.spend("ci", 1);
  life.file.save();
  run_dry();
  EXPECT_TRUE(life.limits.has_tokens(kKey));
  fs::remove(folder_.at("state"));
  life.file.save();
  run_dry();
  EXPECT_NE(text().find(R"({"ci":1})"), std::string::npos) << "what failed is tried again";
}

TEST_F(KeyUseFileTest, AServerThatStartsAgainGivesNoNewBudget) {
  const auto options = [this] {
    TestServer::Options some;
    some.service.access.keys = {{.name = "ci", .secret = "one", .tokens_per_day_max = 5}};
    some.key_use_path = path_;
    return some;
  };
  std::string request = ask("say x");
  request.insert(request.find("\r\n") + 2, "x-api-key: one\r\n");
  {
    TestServer server(options());
    EXPECT_EQ(server.answer(request).status, 200U);
    ASSERT_TRUE(server.wait_until([&] { return server.service().requests_active() == 0; }));
  }
  TestServer server(options());
  EXPECT_EQ(server.answer(request).status, 429U);
}

}  // namespace
}  // namespace pensieve::gateway
