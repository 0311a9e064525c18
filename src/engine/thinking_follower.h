// Keeps the thoughts of an answer within their budget, and its shape for what follows them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/shape_follower.h"

namespace pensieve::engine {

/// How one model thinks, in tokens, and how much it may.
struct ThinkingRules {
  std::vector<Token> begin;  // What opens the thoughts; empty where they cannot be opened.
  std::string end_text;      // What closes them. Never empty.
  std::vector<Token> end;    // What is said where the budget is spent: end_text and around it.
  std::vector<Token> spaces = {};  // Tokens that may stand between the thoughts and the answer.
  std::vector<Token> stops = {};   // Tokens that end generation.
  bool opened = false;             // The prompt ends inside the thoughts.
  std::uint32_t tokens_max = 0;    // 0: the thoughts are closed as soon as they are opened.
  /// The answer's shape is about all of it, thoughts included; else it begins behind them.
  bool shape_has_thoughts = false;
};

/// One answer: BEGIN thoughts END answer, or the answer alone.
///
/// Thoughts that reach their budget are closed at the next whole character. They may begin again
/// until something is said, where the shape takes BEGIN as text; the budget is for all of them, and
/// where it is spent they cannot be opened again. An answer with a shape cannot end inside its
/// thoughts.
///
/// Thread-safety: one thread.
class ThinkingFollower final : public ShapeFollower {
 public:
  /// Most tokens of white space between the thoughts and an answer with a shape.
  static constexpr int kGapTokensMax = 2;

  using MakeFollower = std::function<std::unique_ptr<ShapeFollower>()>;
  using AppendPiece = std::function<void(Token, std::string&)>;

  /// `make_answer` gives a follower of the answer's shape; null, or a null follower: every answer
  /// is right.
  ThinkingFollower(ThinkingRules rules, MakeFollower make_answer, AppendPiece append_piece);

  void mask(std::span<float> logits) override;
  bool accept(Token token) override;
  bool finished() const override;

 private:
  enum class State : std::uint8_t { kBefore, kThinking, kAnswer };

  bool must_close() const;
  bool allowed_before(Token token) const;
  bool accept_before(Token token);
  bool accept_thought(Token token);
  bool accept_answer(Token token);
  void begin_answer();
  bool would_reopen(Token token) const;
  void follow_front(Token token);

  const ThinkingRules rules_;
  const MakeFollower make_answer_;
  const AppendPiece append_piece_;
  std::unique_ptr<ShapeFollower> answer_;  // Null: every answer is right.
  State state_ = State::kBefore;
  std::size_t opened_ = 0;      // Tokens of `begin` so far, in front of the answer.
  bool answer_fits_ = true;     // kBefore: what was said may also be an answer.
  std::uint32_t thoughts_ = 0;  // Tokens so far.
  std::size_t closing_ = 0;     // Tokens of `end` said because the budget is spent.
  std::string tail_;            // The end of the thoughts' text, long enough to see end_text.
  int gap_left_ = 0;
  bool at_front_ = false;  // kAnswer: nothing was said since the thoughts; they may begin again.
  bool ended_ = false;
};

}  // namespace pensieve::engine
