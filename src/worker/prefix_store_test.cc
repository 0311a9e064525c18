#include "worker/prefix_store.h"

#include <gtest/gtest.h>

#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;
using Keep = PrefixStore::Keep;

std::vector<Token> longer(std::vector<Token> tokens, std::size_t more) {
  const std::vector<Token> rest = prefix_tokens(99, more);
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return tokens;
}

TEST_F(PrefixStoreTest, FindsTheLongestPrefixThatAPromptBeginsWith) {
  const auto store = make_store();
  const std::vector<Token> head = prefix_tokens(1, 100);
  const std::vector<Token> first = longer(head, 100);
  std::vector<Token> second = head;
  second.resize(300, 5);
  ASSERT_TRUE(put(*store, first));
  ASSERT_TRUE(put(*store, second));
  ASSERT_TRUE(put(*store, prefix_tokens(2, 400)));

  std::vector<Token> prompt = head;
  prompt.resize(270, 5);
  prompt.resize(290, 6);
  std::uint32_t common = 0;
  EXPECT_EQ(restored(*store, prompt, &common), state_of(second));
  EXPECT_EQ(common, 270U);
  EXPECT_FALSE(store->find(prompt, 270));
  EXPECT_TRUE(store->find(prompt, 269));
  EXPECT_FALSE(store->find(prefix_tokens(3, 400), 0));
}

TEST_F(PrefixStoreTest, ShortPrefixesAreNotKept) {
  const auto store = make_store();
  EXPECT_FALSE(put(*store, prefix_tokens(1, PrefixStore::kParkTokensLeast - 1)));
  EXPECT_TRUE(put(*store, prefix_tokens(2, PrefixStore::kParkTokensLeast)));
}

TEST_F(PrefixStoreTest, TheBudgetOfMemoryIsKeptToTheByte) {
  const Bytes one = charge_of(100);
  PrefixStore store(clock_, {});
  const std::vector<Token> tokens = prefix_tokens(1, 100);
  bool copied = false;
  const auto copy = [&](std::string& out) {
    copied = true;
    EXPECT_EQ(store.stats().parked_bytes, one) << "charged before it is taken";
    out = state_of(tokens);
    return Result<void>();
  };
  store.set_budgets(Bytes(one.count() - 1), Bytes());
  EXPECT_FALSE(store.put(tokens, Bytes(1600), Keep::kParked, copy));
  EXPECT_FALSE(copied);
  EXPECT_EQ(store.stats().parked_bytes, Bytes());
  EXPECT_EQ(store.stats().dropped, 1U);

  store.set_budgets(one, Bytes());
  EXPECT_TRUE(store.put(tokens, Bytes(1600), Keep::kParked, copy));
  EXPECT_TRUE(copied);
  EXPECT_EQ(store.stats().parked_bytes, one);
}

TEST_F(PrefixStoreTest, WhatIsCopiedIsNeverMoreThanWasAnnounced) {
  PrefixStore store(clock_, {});
  store.set_budgets(1_MiB, Bytes());
  const std::vector<Token> tokens = prefix_tokens(1, 100);
  const auto larger = [](std::string& out) {
    out.assign(1601, 's');
    return Result<void>();
  };
  EXPECT_FALSE(store.put(tokens, Bytes(1600), Keep::kParked, larger));
  const auto failing = [](std::string&) { return Result<void>(fail(Code::kOutOfMemory, "no")); };
  EXPECT_FALSE(store.put(tokens, Bytes(1600), Keep::kParked, failing));
  EXPECT_EQ(store.stats().parked_bytes, Bytes());
  EXPECT_FALSE(store.find(tokens, 0));
}

TEST_F(PrefixStoreTest, TheLeastRecentlyUsedLeavesMemoryFirst) {
  PrefixStore store(clock_, {});
  store.set_budgets(Bytes(3 * charge_of(100).count()), Bytes());
  for (const Token first : {1, 2, 3}) ASSERT_TRUE(put(store, prefix_tokens(first, 100)));
  ASSERT_EQ(restored(store, prefix_tokens(1, 100)), state_of(prefix_tokens(1, 100)));
  ASSERT_TRUE(put(store, prefix_tokens(4, 100)));
  EXPECT_EQ(restored(store, prefix_tokens(2, 100)), "");
  for (const Token first : {1, 3, 4}) EXPECT_NE(restored(store, prefix_tokens(first, 100)), "");
  EXPECT_EQ(store.stats().dropped, 1U);
}

TEST_F(PrefixStoreTest, WhatSomebodyHoldsIsNotEvictedAndStaysCharged) {
  PrefixStore store(clock_, {});
  const Bytes one = charge_of(100);
  store.set_budgets(one, Bytes());
  ASSERT_TRUE(put(store, prefix_tokens(1, 100)));
  auto held = store.parked(store.find(prefix_tokens(1, 100), 0)->name);
  ASSERT_TRUE(held);
  EXPECT_FALSE(put(store, prefix_tokens(2, 100)));
  EXPECT_EQ(store.stats().parked_bytes, one);
  held.reset();
  EXPECT_TRUE(put(store, prefix_tokens(2, 100)));
  EXPECT_EQ(store.stats().parked_bytes, one);
}

TEST_F(PrefixStoreTest, ALongerStateServesForItsPrefixes) {
  const auto store = make_store();
  const std::vector<Token> before = prefix_tokens(1, 300);
  const std::vector<Token> after = longer(before, 50);
  ASSERT_TRUE(put(*store, before));
  store_all(*store);
  ASSERT_TRUE(put(*store, after));
  EXPECT_EQ(store->stats().parked, 1U);
  store_all(*store);
  EXPECT_EQ(files_in(folder()).size(), 1U);
  std::uint32_t common = 0;
  EXPECT_EQ(restored(*store, before, &common), state_of(after));
  EXPECT_EQ(common, 300U);
  // And a prefix of what is parked is kept already.
  EXPECT_TRUE(store->put(before, Bytes(1), Keep::kParked, [](std::string&) -> Result<void> {
    ADD_FAILURE() << "copied again";
    return {};
  }));
}

TEST_F(PrefixStoreTest, WhereAStateCannotGoBackItsPrefixesAreKeptAsWell) {
  const auto store = make_store("model a", false);
  const std::vector<Token> before = prefix_tokens(1, 300);
  const std::vector<Token> after = longer(before, 50);
  ASSERT_TRUE(put(*store, before));
  ASSERT_TRUE(put(*store, after));
  store_all(*store);
  EXPECT_EQ(store->stats().parked, 2U);
  EXPECT_EQ(files_in(folder()).size(), 2U);
  EXPECT_EQ(restored(*store, before), state_of(before)) << "the shorter of two that share as much";
  EXPECT_EQ(restored(*store, after), state_of(after));
}

TEST_F(PrefixStoreTest, WritesOnlyWhatHasRested) {
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  ASSERT_TRUE(put(*store, prefix_tokens(2, PrefixStore::kStoreTokensLeast - 1)));
  clock_.advance(PrefixStore::kRest - Duration(1));
  store->tick();
  settle(*store);
  EXPECT_TRUE(files_in(folder()).empty());
  clock_.advance(Duration(1));
  store->tick();
  settle(*store);
  EXPECT_EQ(files_in(folder()).size(), 1U);
  EXPECT_EQ(store->stats().spilled, 1U);
  EXPECT_EQ(store->stats().parked, 2U) << "it stays in memory as well";
  EXPECT_EQ(store->stats().stored_bytes, file_of(300));
}

TEST_F(PrefixStoreTest, ARestartFindsWhatWasStored) {
  const std::vector<Token> tokens = prefix_tokens(1, 300);
  {
    const auto store = make_store();
    ASSERT_TRUE(put(*store, tokens));
    store_all(*store);
  }
  const auto store = make_store();
  EXPECT_EQ(store->stats().stored, 1U);
  const auto match = store->find(longer(tokens, 20), 0);
  ASSERT_TRUE(match);
  EXPECT_FALSE(match->parked);
  EXPECT_EQ(match->tokens, 300U) << "exact where the prompt begins with all of it";
  std::uint32_t common = 0;
  EXPECT_EQ(restored(*store, longer(tokens, 20), &common), state_of(tokens));
  EXPECT_EQ(common, 300U);
}

TEST_F(PrefixStoreTest, AnotherModelOrBuildFindsNothingAndHarmsNothing) {
  const std::vector<Token> tokens = prefix_tokens(1, 300);
  {
    const auto store = make_store("model a");
    ASSERT_TRUE(put(*store, tokens));
    store_all(*store);
  }
  {
    const auto store = make_store("model b");
    EXPECT_FALSE(store->find(tokens, 0));
    EXPECT_EQ(store->stats().stored, 0U);
    EXPECT_EQ(store->stats().stored_bytes, file_of(300)) << "it counts in the budget";
    EXPECT_EQ(store->stats().corrupt, 0U);
  }
  EXPECT_EQ(restored(*make_store("model a"), tokens), state_of(tokens));
}

TEST_F(PrefixStoreTest, WithoutABudgetOfMemoryAllGoesToDisk) {
  const auto store = make_store();
  for (const Token first : {1, 2, 3}) ASSERT_TRUE(put(*store, prefix_tokens(first, 300)));
  ASSERT_TRUE(put(*store, prefix_tokens(4, 100)));
  store->set_budgets(Bytes(), stored_max_);
  settle(*store);
  EXPECT_EQ(store->stats().parked_bytes, Bytes());
  EXPECT_EQ(store->stats().parked, 0U);
  EXPECT_EQ(store->stats().stored, 3U);
  EXPECT_EQ(store->stats().dropped, 1U) << "the short one";
  const auto match = store->find(prefix_tokens(1, 300), 0);
  ASSERT_TRUE(match);
  EXPECT_FALSE(store->fetch(match->name)) << "there is no memory to read it into";
  store->set_budgets(parked_max_, stored_max_);
  EXPECT_EQ(restored(*store, prefix_tokens(1, 300)), state_of(prefix_tokens(1, 300)));
}

TEST_F(PrefixStoreTest, WhatIsOnDiskLeavesMemoryAtOnce) {
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  store_all(*store);
  store->set_budgets(Bytes(), stored_max_);
  EXPECT_EQ(store->stats().parked_bytes, Bytes());
  EXPECT_EQ(store->stats().dropped, 0U);
}

TEST_F(PrefixStoreTest, ASmallerBudgetMakesTheLeastRecentlyUsedLeave) {
  const auto store = make_store();
  for (const Token first : {1, 2, 3, 4}) ASSERT_TRUE(put(*store, prefix_tokens(first, 300)));
  ASSERT_TRUE(store->parked(store->find(prefix_tokens(1, 300), 0)->name));
  const std::uint64_t one = charge_of(300).count();
  store->set_budgets(Bytes(2 * one), stored_max_);
  settle(*store);
  EXPECT_EQ(store->stats().parked_bytes, Bytes(2 * one));
  EXPECT_TRUE(store->find(prefix_tokens(1, 300), 0)->parked);
  EXPECT_FALSE(store->find(prefix_tokens(2, 300), 0)->parked);
  EXPECT_FALSE(store->find(prefix_tokens(3, 300), 0)->parked);
  EXPECT_TRUE(store->find(prefix_tokens(4, 300), 0)->parked);
  EXPECT_EQ(files_in(folder()).size(), 2U);
}

TEST_F(PrefixStoreTest, WithoutADiskASmallerBudgetDrops) {
  PrefixStore store(clock_, {});
  store.set_budgets(1_MiB, 1_MiB);
  for (const Token first : {1, 2}) ASSERT_TRUE(put(store, prefix_tokens(first, 300)));
  store.set_budgets(charge_of(300), 1_MiB);
  EXPECT_EQ(store.stats().parked_bytes, charge_of(300));
  EXPECT_EQ(store.stats().dropped, 1U);
  EXPECT_TRUE(store.find(prefix_tokens(2, 300), 0));
}

TEST_F(PrefixStoreTest, ForTheDiskAloneNothingParkedIsGivenUp) {
  parked_max_ = charge_of(300);
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  EXPECT_FALSE(put(*store, prefix_tokens(2, 300), Keep::kStored));
  EXPECT_EQ(store->stats().dropped, 0U);
  store->clear(false);
  EXPECT_TRUE(put(*store, prefix_tokens(2, 300), Keep::kStored));
  settle(*store);
  EXPECT_EQ(store->stats().parked_bytes, Bytes()) << "it leaves memory once it is written";
  EXPECT_EQ(files_in(folder()).size(), 1U);
  // Known already: nothing is copied.
  EXPECT_TRUE(
      store->put(prefix_tokens(2, 300), Bytes(1), Keep::kStored, [](std::string&) -> Result<void> {
        ADD_FAILURE() << "copied again";
        return {};
      }));
}

TEST_F(PrefixStoreTest, ClearForgetsMemoryAndOnlyOnDemandTheDisk) {
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  ASSERT_TRUE(put(*store, prefix_tokens(2, 100)));
  store_all(*store);
  PrefixStore::Cleared cleared = store->clear(false);
  EXPECT_EQ(cleared.parked_tokens, 400U);
  EXPECT_EQ(cleared.parked_bytes.count(), charge_of(300).count() + charge_of(100).count());
  EXPECT_EQ(cleared.stored_bytes, Bytes());
  settle(*store);
  EXPECT_EQ(files_in(folder()).size(), 1U);
  cleared = store->clear(true);
  EXPECT_EQ(cleared.parked_tokens, 0U);
  EXPECT_EQ(cleared.stored_bytes, file_of(300));
  settle(*store);
  EXPECT_TRUE(files_in(folder()).empty());
  EXPECT_EQ(store->stats().stored, 0U);
  EXPECT_EQ(store->stats().stored_bytes, Bytes());
}

TEST_F(PrefixStoreTest, WhatAnEngineCannotUseIsForgottenInBothTiers) {
  const auto store = make_store();
  for (const Token first : {1, 2}) ASSERT_TRUE(put(*store, prefix_tokens(first, 300)));
  store_all(*store);
  store->forget(store->find(prefix_tokens(1, 300), 0)->name);
  settle(*store);
  EXPECT_FALSE(store->find(prefix_tokens(1, 300), 0));
  EXPECT_TRUE(store->find(prefix_tokens(2, 300), 0));
  EXPECT_EQ(files_in(folder()).size(), 1U);
  store->forget("nothing");
}

TEST_F(PrefixStoreTest, WhatIsParkedOnlyIfThereIsRoomDropsNothing) {
  PrefixStore store(clock_, {});
  store.set_budgets(charge_of(300), Bytes());
  ASSERT_TRUE(put(store, prefix_tokens(1, 300), Keep::kIfRoom));
  EXPECT_FALSE(put(store, prefix_tokens(2, 300), Keep::kIfRoom));
  EXPECT_TRUE(store.find(prefix_tokens(1, 300), 0));
  EXPECT_EQ(store.stats().dropped, 0U);
}

TEST_F(PrefixStoreTest, UnparkedStatesAreGoneFromMemoryAndStayOnDisk) {
  const auto store = make_store();
  ASSERT_TRUE(put(*store, prefix_tokens(1, 300)));
  ASSERT_TRUE(put(*store, prefix_tokens(2, 300)));
  store->unpark(store->find(prefix_tokens(1, 300), 0)->name);
  EXPECT_FALSE(store->find(prefix_tokens(1, 300), 0));
  store_all(*store);
  store->unpark(store->find(prefix_tokens(2, 300), 0)->name);
  EXPECT_EQ(store->stats().parked_bytes, Bytes());
  EXPECT_TRUE(store->find(prefix_tokens(2, 300), 0));
}

}  // namespace
}  // namespace pensieve::worker
