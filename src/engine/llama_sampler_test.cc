// The order in which a sampler asks a shape: try what the model wants first, mask only then.
#include "engine/llama_sampler.h"

#include <limits>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

struct Asked {
  int masks = 0;
  std::vector<Token> accepted;
};

/// Allows even tokens.
class EvenTokens final : public ShapeFollower {
 public:
  explicit EvenTokens(Asked& asked) : asked_(asked) {}

  void mask(std::span<float> logits) override {
    ++asked_.masks;
    for (std::size_t token = 1; token < logits.size(); token += 2) logits[token] = kNever;
  }
  bool accept(Token token) override {
    if (token % 2 != 0) return false;
    asked_.accepted.push_back(token);
    return true;
  }
  bool finished() const override { return false; }

 private:
  Asked& asked_;
};

Sampling greedily() {
  Sampling sampling;
  sampling.temperature = 0.0F;
  return sampling;
}

class LlamaSamplerTest : public testing::Test {
 protected:
  LlamaSampler sampler(const Sampling& sampling) {
    Result<LlamaSampler> made = LlamaSampler::create(sampling, SamplingDefaults());
    EXPECT_TRUE(made) << made.error().message;
    made->keep(std::make_unique<EvenTokens>(asked_), {});
    return *std::move(made);
  }

  Asked asked_;
  std::vector<llama_token_data> scratch_;
};

TEST_F(LlamaSamplerTest, ATokenThatFitsIsTakenWithoutAMask) {
  LlamaSampler greedy = sampler(greedily());
  const std::vector<float> logits = {0.0F, 1.0F, 5.0F, 2.0F};
  EXPECT_EQ(greedy.sample(logits, scratch_), 2);
  EXPECT_EQ(asked_.masks, 0);
  EXPECT_EQ(asked_.accepted, std::vector<Token>{2});
}

TEST_F(LlamaSamplerTest, WhatDoesNotFitIsReplacedByTheBestThatDoes) {
  LlamaSampler greedy = sampler(greedily());
  const std::vector<float> logits = {0.5F, 1.0F, 0.2F, 5.0F};
  EXPECT_EQ(greedy.sample(logits, scratch_), 0);
  EXPECT_EQ(asked_.masks, 1);
  EXPECT_EQ(asked_.accepted, std::vector<Token>{0});
}

TEST_F(LlamaSamplerTest, DrawnTokensFitTooAndKeepTheirShares) {
  LlamaSampler drawing = sampler({.temperature = 1.0F, .top_p = 1.0F, .top_k = 4, .seed = 7});
  // Shares of the tokens that fit, given that one does: e to 1.
  const std::vector<float> logits = {1.0F, 1.5F, 0.0F, 1.5F};
  constexpr int kDraws = 4000;
  int zeros = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    const Token token = drawing.sample(logits, scratch_);
    ASSERT_EQ(token % 2, 0);
    zeros += token == 0 ? 1 : 0;
  }
  constexpr double kShare = 0.731;   // e / (e + 1).
  constexpr double kSpread = 0.028;  // Four standard deviations.
  EXPECT_NEAR(static_cast<double>(zeros) / kDraws, kShare, kSpread);
  EXPECT_GT(asked_.masks, 0);
  EXPECT_LT(asked_.masks, kDraws);
}

}  // namespace
}  // namespace pensieve::engine
