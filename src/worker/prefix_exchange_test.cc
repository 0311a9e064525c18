#include "worker/prefix_exchange.h"

#include <utility>

#include <gtest/gtest.h>

#include "worker/testing/fake_engine.h"
#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;

class PrefixExchangeTest : public PrefixStoreTest {
 protected:
  PrefixExchangeTest() : store_(make_store()) {}

  /// Makes `sequence` hold the tokens.
  void fill(engine::SequenceId sequence, const std::vector<Token>& tokens) {
    engine_.keep_prefix(sequence, 0);
    const engine::StepInput input{sequence, tokens, false};
    std::vector<Token> sampled;
    ASSERT_TRUE(engine_.step(std::span(&input, 1), sampled));
  }
  /// As a loop would: tokens that the sequence holds now, 0 where nothing was found.
  std::uint32_t restore(engine::SequenceId sequence, const std::vector<Token>& prompt,
                        std::uint32_t in_cache = 0) {
    auto found = exchange_.find(prompt, in_cache);
    if (!found) return 0;
    const auto restored = exchange_.restore(sequence, std::move(*found));
    EXPECT_TRUE(restored) << restored.error().message;
    return restored ? *restored : 0;
  }

  FakeEngine engine_{2000, 4};
  std::unique_ptr<PrefixStore> store_;
  PrefixExchange exchange_{engine_, *store_, clock_};
  const std::vector<Token> tokens_ = prefix_tokens(1, 300);
};

TEST_F(PrefixExchangeTest, WhatWasParkedComesBackIntoAnySequence) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  std::vector<Token> prompt = tokens_;
  prompt.push_back(7);
  EXPECT_EQ(restore(2, prompt), 300U);
  EXPECT_EQ(engine_.tokens_of(2), tokens_);
}

TEST_F(PrefixExchangeTest, TheLastTokenOfAPromptIsLeftToBeProcessed) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  EXPECT_EQ(restore(0, tokens_), 299U);
}

TEST_F(PrefixExchangeTest, WhatIsInTheCacheAsAWholeIsParkedNoLonger) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  std::vector<Token> other = tokens_;
  other.resize(298);
  other.resize(310, 7);
  EXPECT_EQ(restore(0, other), 298U);
  EXPECT_EQ(store_->stats().parked, 1U) << "two of its tokens are nowhere else";
  std::vector<Token> prompt = tokens_;
  prompt.push_back(7);
  EXPECT_EQ(restore(1, prompt), 300U);
  EXPECT_EQ(store_->stats().parked, 0U);
  EXPECT_EQ(store_->stats().parked_bytes, Bytes());
}

TEST_F(PrefixExchangeTest, HitsAndMissesAreCounted) {
  EXPECT_FALSE(exchange_.find(tokens_, 0));
  EXPECT_FALSE(exchange_.find(tokens_, 149));
  EXPECT_FALSE(exchange_.find(tokens_, 150)) << "the cache has half of it: no miss";
  EXPECT_EQ(store_->stats().misses, 2U);
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  EXPECT_EQ(restore(0, tokens_), 299U);
  EXPECT_EQ(store_->stats().hits, 1U);
}

TEST_F(PrefixExchangeTest, OnlyTheSharedPartIsKept) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  std::vector<Token> prompt = tokens_;
  prompt.resize(200);
  prompt.resize(250, 7);
  EXPECT_EQ(restore(0, prompt), 200U);
  EXPECT_EQ(engine_.tokens_of(0).size(), 200U);
}

TEST_F(PrefixExchangeTest, IsHonestWhereTheEngineCannotGoBackAsFarAsAsked) {
  engine_.prefix_granularity = 64;
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  std::vector<Token> prompt = tokens_;
  prompt.resize(200);
  prompt.resize(250, 7);
  EXPECT_EQ(restore(0, prompt), 192U);
  EXPECT_EQ(engine_.tokens_of(0).size(), 192U);
}

TEST_F(PrefixExchangeTest, ARestoreHasToSaveEnough) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  std::vector<Token> prompt = tokens_;
  prompt.push_back(7);
  ASSERT_EQ(PrefixExchange::with_gain(253, PrefixExchange::kParkedGainLeast), 300U);
  EXPECT_EQ(restore(0, prompt, 254), 0U);
  EXPECT_EQ(restore(0, prompt, 253), 300U);
}

TEST_F(PrefixExchangeTest, WithoutCellsNothingIsRestoredAndNothingLost) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  engine_.keep_prefix(0, 0);
  fill(1, prefix_tokens(2, 1701));
  const auto restored = exchange_.restore(0, *exchange_.find(tokens_, 0));
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, Code::kOutOfMemory);
  engine_.keep_prefix(1, 0);
  EXPECT_EQ(restore(0, tokens_), 299U);
}

TEST_F(PrefixExchangeTest, AStateThatTheEngineRefusesIsForgotten) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.park(0, tokens_));
  store_all(*store_);
  engine_.restore_error = Error{Code::kInvalidArgument, "no such state"};
  EXPECT_FALSE(exchange_.restore(1, *exchange_.find(tokens_, 0)));
  settle(*store_);
  EXPECT_FALSE(store_->find(tokens_, 0));
  EXPECT_TRUE(files_in(folder()).empty());
}

TEST_F(PrefixExchangeTest, ARequestWaitsForItsFileAndThenStarts) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.store(0, tokens_));
  settle(*store_);
  ASSERT_EQ(store_->stats().parked, 0U);
  PrefixExchange::Search search;
  std::vector<Token> prompt = tokens_;
  prompt.push_back(7);
  ASSERT_TRUE(exchange_.must_wait(search, prompt, 0));
  settle(*store_);
  EXPECT_FALSE(exchange_.must_wait(search, prompt, 0));
  EXPECT_EQ(restore(1, prompt), 300U);
}

TEST_F(PrefixExchangeTest, AFileHasToSaveMoreThanAParkedState) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.store(0, tokens_));
  settle(*store_);
  std::vector<Token> prompt = tokens_;
  prompt.push_back(7);
  PrefixExchange::Search little;
  ASSERT_EQ(PrefixExchange::with_gain(153, PrefixExchange::kStoredGainLeast), 300U);
  EXPECT_FALSE(exchange_.must_wait(little, prompt, 154));
  PrefixExchange::Search enough;
  EXPECT_TRUE(exchange_.must_wait(enough, prompt, 153));
}

TEST_F(PrefixExchangeTest, TheWaitForAFileIsNoLongerThanComputingIt) {
  fill(0, tokens_);
  ASSERT_TRUE(exchange_.store(0, tokens_));
  settle(*store_);
  std::vector<Token> prompt = tokens_;
  prompt.push_back(7);
  PrefixExchange::Search search;
  ASSERT_TRUE(exchange_.must_wait(search, prompt, 0));
  clock_.advance(300 * PrefixExchange::kFetchWaitPerToken);
  EXPECT_FALSE(exchange_.must_wait(search, prompt, 0));
  EXPECT_FALSE(exchange_.must_wait(search, prompt, 0)) << "and it does not begin anew";
}

TEST_F(PrefixExchangeTest, ShortSequencesAreNotKept) {
  fill(0, prefix_tokens(1, PrefixStore::kParkTokensLeast - 1));
  EXPECT_FALSE(exchange_.park(0, engine_.tokens_of(0)));
  EXPECT_EQ(store_->stats().dropped, 0U);
}

}  // namespace
}  // namespace pensieve::worker
