#include "engine/thinking_follower.h"

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

// A vocabulary of bytes (token = byte), and these.
constexpr Token kStop = 256;
constexpr Token kOpen = 257;   // "<think>"
constexpr Token kClose = 258;  // "</think>"
constexpr std::size_t kVocabulary = 259;

void append_piece(Token token, std::string& out) {
  if (token < 256) out += static_cast<char>(token);
  if (token == kOpen) out += "<think>";
  if (token == kClose) out += "</think>";
}

/// An answer that must be "{}".
class Braces final : public ShapeFollower {
 public:
  void mask(std::span<float> logits) override {
    for (std::size_t token = 0; token < logits.size(); ++token) {
      if (static_cast<Token>(token) != next()) logits[token] = -INFINITY;
    }
  }
  bool accept(Token token) override {
    if (finished() || token != next()) return false;
    ++said_;
    return true;
  }
  bool finished() const override { return said_ == 3; }

 private:
  Token next() const { return said_ == 0 ? '{' : said_ == 1 ? '}' : kStop; }
  int said_ = 0;
};

class ThinkingFollowerTest : public testing::Test {
 protected:
  static ThinkingRules rules(std::uint32_t tokens_max = 100) {
    return {.begin = {kOpen},
            .end_text = "</think>",
            .end = {'\n', kClose},
            .spaces = {'\n'},
            .stops = {kStop},
            .tokens_max = tokens_max};
  }
  static ThinkingFollower free_answer(ThinkingRules rules) {
    return {std::move(rules), nullptr, append_piece};
  }
  static ThinkingFollower braces(ThinkingRules rules) {
    return {std::move(rules), [] { return std::make_unique<Braces>(); }, append_piece};
  }

  static std::vector<Token> allowed(ThinkingFollower& follower) {
    std::vector<float> logits(kVocabulary, 1.0F);
    follower.mask(logits);
    std::vector<Token> tokens;
    for (std::size_t token = 0; token < kVocabulary; ++token) {
      if (std::isfinite(logits[token])) tokens.push_back(static_cast<Token>(token));
    }
    return tokens;
  }
  static bool allows(ThinkingFollower& follower, Token token) {
    const std::vector<Token> tokens = allowed(follower);
    return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
  }
  static void say(ThinkingFollower& follower, std::string_view text) {
    for (const char c : text) {
      EXPECT_TRUE(allows(follower, static_cast<unsigned char>(c))) << c;
      EXPECT_TRUE(follower.accept(static_cast<unsigned char>(c))) << c;
    }
  }
};

using Tokens = std::vector<Token>;

TEST_F(ThinkingFollowerTest, ThoughtsEndWhenTheirBudgetIsSpent) {
  ThinkingFollower follower = free_answer(rules(3));
  EXPECT_TRUE(follower.accept(kOpen));
  say(follower, "abc");
  EXPECT_EQ(allowed(follower), Tokens{'\n'});
  EXPECT_FALSE(follower.accept('d'));
  EXPECT_TRUE(follower.accept('\n'));
  EXPECT_EQ(allowed(follower), Tokens{kClose});
  EXPECT_TRUE(follower.accept(kClose));
  EXPECT_EQ(allowed(follower).size(), kVocabulary - 1);
}

TEST_F(ThinkingFollowerTest, ThoughtsThatBeginAgainHaveWhatIsLeftOfTheBudget) {
  ThinkingFollower follower = free_answer(rules(4));
  EXPECT_TRUE(follower.accept(kOpen));
  say(follower, "a");
  EXPECT_TRUE(follower.accept(kClose));
  say(follower, "\n\n");
  EXPECT_TRUE(allows(follower, kOpen));
  EXPECT_TRUE(follower.accept(kOpen));
  say(follower, "bc");  // With the token that closed the first, that is all.
  EXPECT_EQ(allowed(follower), Tokens{'\n'});
  EXPECT_TRUE(follower.accept('\n'));
  EXPECT_EQ(allowed(follower), Tokens{kClose});
  EXPECT_TRUE(follower.accept(kClose));
  EXPECT_FALSE(allows(follower, kOpen));
  EXPECT_FALSE(follower.accept(kOpen));
  say(follower, "\nx");
  EXPECT_TRUE(allows(follower, kOpen));  // Now it is a word of the answer.
  EXPECT_TRUE(follower.accept(kOpen));
  EXPECT_EQ(allowed(follower).size(), kVocabulary);
}

TEST_F(ThinkingFollowerTest, AnOpeningOfSeveralTokensIsOnlyRefusedItsLast) {
  ThinkingRules spelled = rules(0);
  spelled.begin = {'<', 't', '>'};
  ThinkingFollower follower = free_answer(spelled);
  for (const Token token : {'<', 't', '>', '\n'}) EXPECT_TRUE(follower.accept(token));
  EXPECT_TRUE(follower.accept(kClose));
  say(follower, "<t");
  EXPECT_FALSE(allows(follower, '>'));
  say(follower, "a>");
}

TEST_F(ThinkingFollowerTest, ThoughtsBeginAgainOnlyWhereTheShapeTakesTheirMark) {
  ThinkingFollower follower = braces(rules());
  EXPECT_TRUE(follower.accept(kOpen));
  EXPECT_TRUE(follower.accept(kClose));
  EXPECT_FALSE(allows(follower, kOpen));
  EXPECT_FALSE(follower.accept(kOpen));
  say(follower, "{}");
}

TEST_F(ThinkingFollowerTest, ACharacterIsNotCutByTheBudget) {
  ThinkingFollower follower = free_answer(rules(1));
  EXPECT_TRUE(follower.accept(kOpen));
  say(follower, "\xe2\x82\xac");  // Three tokens, of which one is within the budget.
  EXPECT_EQ(allowed(follower), Tokens{'\n'});
}

TEST_F(ThinkingFollowerTest, ABudgetOfNothingClosesWhatIsOpened) {
  ThinkingFollower follower = free_answer(rules(0));
  EXPECT_TRUE(follower.accept(kOpen));
  EXPECT_EQ(allowed(follower), Tokens{'\n'});
  ThinkingRules written = rules(0);
  written.opened = true;
  ThinkingFollower opened = free_answer(written);
  EXPECT_EQ(allowed(opened), Tokens{'\n'});
}

TEST_F(ThinkingFollowerTest, ThoughtsMayCloseBeforeByTokenOrByText) {
  for (const Tokens& close : {Tokens{kClose}, Tokens{'<', '/', 't', 'h', 'i', 'n', 'k', '>'}}) {
    ThinkingFollower follower = braces(rules());
    EXPECT_TRUE(follower.accept(kOpen));
    say(follower, "hm");
    for (const Token token : close) EXPECT_TRUE(follower.accept(token));
    EXPECT_EQ(allowed(follower), (Tokens{'\n', '{'}));
  }
}

TEST_F(ThinkingFollowerTest, TheShapeBeginsBehindTheThoughts) {
  ThinkingFollower follower = braces(rules());
  EXPECT_EQ(allowed(follower), (Tokens{'{', kOpen}));
  EXPECT_TRUE(follower.accept(kOpen));
  say(follower, "{{{");
  EXPECT_FALSE(allows(follower, kStop)) << "the answer is missing";
  EXPECT_FALSE(follower.accept(kStop));
  EXPECT_TRUE(follower.accept(kClose));
  say(follower, "\n\n{");
  EXPECT_EQ(allowed(follower), Tokens{'}'});
  say(follower, "}");
  EXPECT_FALSE(follower.finished());
  EXPECT_TRUE(follower.accept(kStop));
  EXPECT_TRUE(follower.finished());
}

TEST_F(ThinkingFollowerTest, WhiteSpaceBetweenThoughtsAndAnswerIsBounded) {
  ThinkingFollower follower = braces(rules());
  EXPECT_TRUE(follower.accept(kOpen));
  EXPECT_TRUE(follower.accept(kClose));
  for (int i = 0; i < ThinkingFollower::kGapTokensMax; ++i) say(follower, "\n");
  EXPECT_EQ(allowed(follower), Tokens{'{'});
}

TEST_F(ThinkingFollowerTest, AnAnswerWithoutThoughtsKeepsItsShape) {
  ThinkingFollower follower = braces(rules());
  say(follower, "{}");
  EXPECT_TRUE(follower.accept(kStop));
  EXPECT_TRUE(follower.finished());
}

TEST_F(ThinkingFollowerTest, AnOpeningOfSeveralTokensMayAlsoTurnOutToBeTheAnswer) {
  ThinkingRules spelled = rules();
  spelled.begin = {'{', '!'};
  ThinkingFollower thinks = braces(spelled);
  say(thinks, "{");
  EXPECT_EQ(allowed(thinks), (Tokens{'!', '}'}));
  say(thinks, "!x");
  EXPECT_TRUE(thinks.accept(kClose));
  EXPECT_EQ(allowed(thinks), (Tokens{'\n', '{'}));

  ThinkingFollower answers = braces(spelled);
  say(answers, "{}");
  EXPECT_EQ(allowed(answers), Tokens{kStop});

  spelled.begin = {'[', '!'};
  ThinkingFollower must_go_on = braces(spelled);
  say(must_go_on, "[");
  EXPECT_EQ(allowed(must_go_on), Tokens{'!'});
}

TEST_F(ThinkingFollowerTest, AShapeOfTheWholeAnswerIsAskedInTheThoughtsToo) {
  ThinkingRules whole = rules(1);
  whole.begin = {'{'};
  whole.end_text = "}";
  whole.end = {'}'};
  whole.shape_has_thoughts = true;
  ThinkingFollower follower = braces(whole);
  EXPECT_EQ(allowed(follower), Tokens{'{'});
  EXPECT_TRUE(follower.accept('{'));
  EXPECT_EQ(allowed(follower), Tokens{'}'});
  EXPECT_FALSE(follower.accept('x'));
  EXPECT_TRUE(follower.accept('}'));
  EXPECT_EQ(allowed(follower), (Tokens{kStop}));
}

}  // namespace
}  // namespace pensieve::engine
