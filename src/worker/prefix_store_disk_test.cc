// The prefix store and its disk: budgets, damage, a disk that fails, and others in the same folder.
#include <sys/resource.h>

#include <atomic>
#include <csignal>

#include <gtest/gtest.h>

#include "worker/prefix_store.h"
#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;
using Keep = PrefixStore::Keep;

/// As long as it lives no file of this process may grow beyond `most`: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(Bytes most) {
    before_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    PENSIEVE_CHECK(::getrlimit(RLIMIT_FSIZE, &before_) == 0);
    const rlimit now{most.count(), before_.rlim_max};
    PENSIEVE_CHECK(::setrlimit(RLIMIT_FSIZE, &now) == 0);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, before_handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*before_handler_)(int) = nullptr;
};

std::size_t count(const std::string& text, std::string_view what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

TEST_F(PrefixStoreTest, TheBudgetOfTheDiskIsKeptToTheByte) {
  stored_max_ = Bytes(2 * file_of(300).count());
  {
    const auto store = make_store();
    for (const Token first : {1, 2}) {
      ASSERT_TRUE(put(*store, prefix_tokens(first, 300)));
      store_all(*store);
    }
    EXPECT_EQ(files_in(folder()).size(), 2U);
    EXPECT_EQ(store->stats().stored_bytes, stored_max_);
    ASSERT_TRUE(put(*store, prefix_tokens(3, 300)));
    store_all(*store);
    EXPECT_EQ(store->stats().stored_bytes, stored_max_);
  }
  const auto reopened = make_store();
  EXPECT_FALSE(reopened->find(prefix_tokens(1, 300), 0)) << "the least recently used went";
  EXPECT_TRUE(reopened->find(prefix_tokens(2, 300), 0));
  reopened->set_budgets(parked_max_, Bytes(stored_max_.count() - 1));
  settle(*reopened);
  EXPECT_EQ(files_in(folder()).size(), 1U);
  EXPECT_FALSE(reopened->find(prefix_tokens(2, 300), 0));
}

TEST_F(PrefixStoreTest, AStateLargerThanTheDisksBudgetIsNotAFailingDisk) {
  stored_max_ = Bytes(file_of(300).count() - 1);
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  store_all(*store);
  EXPECT_TRUE(files_in(folder()).empty());
  EXPECT_FALSE(store->stats().disk_failing);
  EXPECT_EQ(store->stats().parked, 1U);
  stored_max_ = file_of(300);
  store->set_budgets(parked_max_, stored_max_);
  store_all(*store);
  EXPECT_EQ(files_in(folder()).size(), 1U);
}

TEST_F(PrefixStoreTest, ADamagedFileIsAMissAndIsRemoved) {
  const std::vector<Token> tokens = prefix_tokens(1, 300);
  for (const double where : {0.0, 0.01, 0.1, 0.5, 0.999}) {
    SCOPED_TRACE(where);
    auto store = make_store();
    ASSERT_TRUE(put(*store, tokens));
    store_all(*store);
    store->clear(false);
    const std::string path = folder() + "/" + files_in(folder()).at(0);
    std::string text = read_text(path);
    const auto at = static_cast<std::size_t>(where * static_cast<double>(text.size()));
    text[at] = static_cast<char>(text[at] ^ 4);
    write_text(path, text);
    EXPECT_EQ(restored(*store, tokens), "");
    EXPECT_EQ(store->stats().corrupt, 1U);
    EXPECT_FALSE(store->find(tokens, 0));
    EXPECT_TRUE(files_in(folder()).empty());
    EXPECT_FALSE(store->stats().disk_failing);
    EXPECT_EQ(store->stats().parked_bytes, Bytes());
  }
}

TEST_F(PrefixStoreTest, AFileCutShortIsAMissAtTheStart) {
  {
    const auto store = make_store();
    ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
    store_all(*store);
  }
  const std::string path = folder() + "/" + files_in(folder()).at(0);
  write_text(path, read_text(path).substr(0, 1000));
  const auto store = make_store();
  EXPECT_FALSE(store->find(prefix_tokens(1, 300), 0));
  EXPECT_EQ(store->stats().corrupt, 1U);
  EXPECT_TRUE(files_in(folder()).empty());
}

TEST_F(PrefixStoreTest, AFileThatSomebodyRemovedIsAMiss) {
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  store_all(*store);
  store->clear(false);
  std::filesystem::remove_all(folder());
  EXPECT_EQ(restored(*store, prefix_tokens(1, 300)), "");
  EXPECT_FALSE(store->stats().disk_failing);
  EXPECT_EQ(store->stats().stored, 0U);
  // And the folder is made again.
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  store_all(*store);
  EXPECT_EQ(files_in(folder()).size(), 1U);
}

TEST_F(PrefixStoreTest, AFullDiskIsOneLineOnEntryAndOneOnExitAndNeverAnError) {
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  store_all(*store);
  testing::internal::CaptureStderr();
  {
    const FullDisk full(Bytes(1000));
    for (const Token first : {2, 3}) ASSERT_TRUE(put(*store, prefix_tokens(first, 300)));
    store_all(*store);
    EXPECT_TRUE(store->stats().disk_failing);
    clock_.advance(PrefixStore::kRetryEvery);
    store->tick();
    settle(*store);
    EXPECT_TRUE(store->stats().disk_failing);
    EXPECT_EQ(store->stats().parked, 3U) << "what is in memory stays there";
    // What is stored can still be read.
    store->unpark(store->find(prefix_tokens(1, 300), 0)->name);
    EXPECT_EQ(restored(*store, prefix_tokens(1, 300)), state_of(prefix_tokens(1, 300)));
    // What has to leave cannot be written: it is dropped at once.
    store->set_budgets(Bytes(), stored_max_);
    EXPECT_EQ(store->stats().parked_bytes, Bytes());
    EXPECT_EQ(store->stats().dropped, 2U);
    store->set_budgets(parked_max_, stored_max_);
    ASSERT_TRUE(put(*store, prefix_tokens(4, 300)));
  }
  EXPECT_EQ(files_in(folder()).size(), 1U) << "nothing half written is left";
  store_all(*store);
  EXPECT_TRUE(store->stats().disk_failing) << "not tried again before its time";
  clock_.advance(PrefixStore::kRetryEvery);
  store->tick();
  settle(*store);
  EXPECT_FALSE(store->stats().disk_failing);
  EXPECT_EQ(files_in(folder()).size(), 2U);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(count(log, "not stored for now"), 1U) << log;
  EXPECT_EQ(count(log, "stored again"), 1U) << log;
}

TEST_F(PrefixStoreTest, WithoutAFolderTheStoreKeepsToItsMemory) {
  write_text(temp_.at("prefixes"), "a file in its place");
  const auto store = make_store();
  EXPECT_TRUE(store->stats().disk_failing);
  EXPECT_TRUE(store->ready());
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  EXPECT_EQ(restored(*store, prefix_tokens(1, 300)), state_of(prefix_tokens(1, 300)));
  EXPECT_FALSE(put(*store, prefix_tokens(2, 300), Keep::kStored));
  store->set_budgets(Bytes(), stored_max_);
  EXPECT_EQ(store->stats().parked_bytes, Bytes());
}

/// Time passes at each look at it: whatever is done takes long.
class LeapingClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(now_ += leap_.load())); }
  void leap(Duration by) { leap_ = by.count(); }

 private:
  mutable std::atomic<Duration::rep> now_ = std::chrono::hours(1) / Duration(1);
  std::atomic<Duration::rep> leap_ = 0;
};

TEST_F(PrefixStoreTest, ASlowDiskLosesWhatHasToLeaveMemoryAndHoldsNothingUp) {
  LeapingClock clock;
  PrefixStore store(clock, {.directory = folder(), .identity = "model a"});
  store.set_budgets(parked_max_, stored_max_);
  settle(store);
  for (const Token first : {1, 2, 3}) ASSERT_TRUE(put(store, prefix_tokens(first, 300)));
  clock.leap(std::chrono::milliseconds(900));
  store.set_budgets(Bytes(), stored_max_);
  settle(store);
  store.tick();
  EXPECT_EQ(store.stats().parked_bytes, Bytes());
  EXPECT_EQ(store.stats().dropped, 3U);
  EXPECT_TRUE(store.stats().disk_failing);
  EXPECT_TRUE(files_in(folder()).empty());
}

TEST_F(PrefixStoreTest, TwoServersShareAFolderAndItsBudget) {
  stored_max_ = Bytes(3 * file_of(300).count());
  const auto a = make_store();
  const auto b = make_store();
  for (const Token first : {1, 2, 3}) ASSERT_TRUE(put(*a, prefix_tokens(first, 300)));
  store_all(*a);
  ASSERT_TRUE(put(*b, prefix_tokens(4, 300)));
  store_all(*b);
  EXPECT_EQ(files_in(folder()).size(), 3U);
  EXPECT_EQ(b->stats().stored_bytes, stored_max_);
  EXPECT_EQ(b->stats().stored, 3U) << "what the other wrote is found";
  // One of a's files is gone: at most a miss.
  a->clear(false);
  int found = 0;
  for (const Token first : {1, 2, 3}) {
    const std::string state = restored(*a, prefix_tokens(first, 300));
    if (state.empty()) continue;
    EXPECT_EQ(state, state_of(prefix_tokens(first, 300)));
    ++found;
  }
  EXPECT_EQ(found, 2);
  EXPECT_FALSE(a->stats().disk_failing);
}

TEST_F(PrefixStoreTest, WithADiskBudgetOfZeroTheDiskIsLeftAlone) {
  {
    const auto store = make_store();
    ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
    store_all(*store);
  }
  stored_max_ = Bytes();
  const auto store = make_store();
  EXPECT_FALSE(store->find(prefix_tokens(1, 300), 0));
  ASSERT_TRUE(put(*store, prefix_tokens(2, 300)));
  store_all(*store);
  EXPECT_EQ(files_in(folder()).size(), 1U);
}

TEST_F(PrefixStoreTest, FetchesAreBounded) {
  const std::size_t files = PrefixStore::kFetchesMax + 2;
  {
    const auto store = make_store();
    for (std::size_t i = 1; i <= files; ++i) {
      ASSERT_TRUE(put(*store, prefix_tokens(static_cast<Token>(i), 300)));
    }
    store_all(*store);
  }
  parked_max_ = Bytes(2 * charge_of(300).count());
  const auto store = make_store();
  for (std::size_t i = 1; i <= files; ++i) {
    const auto match = store->find(prefix_tokens(static_cast<Token>(i), 300), 0);
    ASSERT_TRUE(match);
    store->fetch(match->name);
    EXPECT_LE(store->stats().parked_bytes, parked_max_);
  }
  settle(*store);
  EXPECT_LE(store->stats().parked_bytes, parked_max_);
  EXPECT_LE(store->stats().parked, 2U);
  EXPECT_GE(store->stats().parked, 1U);
}

}  // namespace
}  // namespace pensieve::worker
