// Random use of two stores over one folder, with damage and restarts, against what must always
// hold. A failure prints the seed.
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "worker/prefix_store.h"
#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;

class PrefixStorePropertyTest : public PrefixStoreTest {
 protected:
  std::uint32_t pick(std::uint32_t least, std::uint32_t most) {
    return std::uniform_int_distribution<std::uint32_t>(least, most)(random_);
  }

  /// Begins like one of three conversations and then goes its own way, or not.
  std::vector<Token> random_tokens() {
    std::vector<Token> tokens = prefix_tokens(static_cast<Token>(pick(1, 3)), pick(1, 700));
    if (pick(0, 1) == 0) {
      const std::vector<Token> own = prefix_tokens(static_cast<Token>(pick(10, 14)), pick(1, 300));
      tokens.insert(tokens.end(), own.begin(), own.end());
    }
    return tokens;
  }

  void new_budgets(int which) {
    parked_[which] = Bytes(pick(0, 3) == 0 ? 0 : pick(10'000, 100'000));
    stored_max_ = Bytes(pick(0, 9) == 0 ? 0 : pick(20'000, 120'000));
    for (const int other : {0, 1}) {
      if (stores_[other]) stores_[other]->set_budgets(parked_[other], stored_max_);
    }
  }

  void restart(int which) {
    if (stores_[which]) {
      spilled_ += stores_[which]->stats().spilled;
      corrupt_ += stores_[which]->stats().corrupt;
    }
    stores_[which].reset();
    stores_[which] = std::make_unique<PrefixStore>(
        clock_, PrefixStore::Options{.directory = folder(), .identity = "model a"});
    stores_[which]->set_budgets(parked_[which], stored_max_);
  }

  void damage() {
    std::vector<std::string> names = files_in(folder());
    // Under the name of a half written file it would lie there until somebody looks again.
    std::erase_if(names, [](const std::string& name) { return name.contains("writing"); });
    if (names.empty()) return;
    const std::string path =
        folder() + "/" + names[pick(0, static_cast<std::uint32_t>(names.size()) - 1)];
    std::string text = read_text(path);
    if (text.empty()) return;
    if (pick(0, 2) == 0) {
      text.resize(pick(0, static_cast<std::uint32_t>(text.size()) - 1));
    } else {
      text[pick(0, static_cast<std::uint32_t>(text.size()) - 1)] ^= 1;
    }
    // As another program would: a new file under the name, not a change under a reader's feet.
    write_text(temp_.at("damaged"), text);
    std::filesystem::rename(temp_.at("damaged"), path);
  }

  /// Whatever is found must be what the prompt begins with, and its state the right one.
  void look_up(PrefixStore& store) {
    const std::vector<Token> prompt = random_tokens();
    auto match = store.find(prompt, 0);
    if (match && !match->parked) {
      if (!store.fetch(match->name)) return;
      if (pick(0, 1) == 0) return;  // A client that does not wait.
      settle(store);
      match = store.find(prompt, 0);
    }
    if (!match || !match->parked) return;
    const auto parked = store.parked(match->name);
    if (!parked) return;
    ++found_;
    ASSERT_EQ(parked->state, state_of(parked->tokens));
    ASSERT_LE(match->tokens, parked->tokens.size());
    ASSERT_TRUE(std::equal(prompt.begin(), prompt.begin() + match->tokens, parked->tokens.begin()));
    ASSERT_TRUE(match->tokens == prompt.size() || match->tokens == parked->tokens.size() ||
                prompt[match->tokens] != parked->tokens[match->tokens]);
    if (pick(0, 2) == 0) store.unpark(match->name);
  }

  void act(int which) {
    PrefixStore& store = *stores_[which];
    const std::uint32_t what = pick(0, 99);
    if (what < 40) {
      const bool stored_only = pick(0, 3) == 0;
      put(store, random_tokens(),
          stored_only ? PrefixStore::Keep::kStored : PrefixStore::Keep::kParked);
    } else if (what < 75) {
      look_up(store);
    } else if (what < 85) {
      clock_.advance(std::chrono::milliseconds(pick(1, 6000)));
      store.tick();
    } else if (what < 91) {
      new_budgets(which);
    } else if (what < 94) {
      store.write_all();
    } else if (what < 96) {
      damage();
    } else if (what < 98) {
      restart(which);
    } else {
      store.clear(pick(0, 1) == 0);
    }
  }

  /// What must hold once all is written: budgets to the byte, in memory and on disk.
  void expect_at_rest() {
    // Both at each step: the time that lets the one come to rest makes work due for the other.
    for (const Duration wait : {Duration(), Duration(PrefixStore::kWriteMax)}) {
      clock_.advance(wait);
      for (auto& store : stores_) store->tick();
      for (auto& store : stores_) settle(*store);
    }
    for (const int which : {0, 1}) {
      ASSERT_LE(stores_[which]->stats().parked_bytes, parked_[which]);
    }
    std::uint64_t bytes = 0;
    for (const std::string& name : files_in(folder())) {
      ASSERT_EQ(name.find("writing"), std::string::npos) << name;
      bytes += std::filesystem::file_size(folder() + "/" + name);
    }
    if (stored_max_ > Bytes()) {
      // Two that make room at the same moment may exceed it by one file each until the next look.
      ASSERT_LE(bytes, stored_max_.count() + 2 * file_of(1000).count());
    }
  }

  std::mt19937 random_;
  Bytes parked_[2];
  std::unique_ptr<PrefixStore> stores_[2];
  std::size_t found_ = 0;
  std::uint64_t spilled_ = 0;
  std::uint64_t corrupt_ = 0;
};

TEST_F(PrefixStorePropertyTest, WhateverHappensAStateIsTheRightOneAndBudgetsHold) {
  for (std::uint32_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    random_.seed(seed);
    // First the threads that still write there.
    for (auto& store : stores_) store.reset();
    std::filesystem::remove_all(folder());
    for (const int which : {0, 1}) restart(which);
    new_budgets(0);
    for (int i = 0; i < 300; ++i) {
      const int which = static_cast<int>(pick(0, 1));
      act(which);
      if (HasFatalFailure()) return;
      if (i % 50 == 49) expect_at_rest();
      if (HasFatalFailure()) return;
    }
    for (const int which : {0, 1}) restart(which);  // To count what these two have done.
  }
  // The seeds really reach what they are for; how often depends on the threads.
  EXPECT_GT(found_, 100U);
  EXPECT_GT(spilled_, 20U);
  EXPECT_GT(corrupt_, 0U);
}

}  // namespace
}  // namespace pensieve::worker
