// Thoughts in front of an answer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/answer_parser.h"

namespace pensieve::worker {

/// Takes the thoughts off the front of an answer and gives the rest to another parser:
///
///   [white space] BEGIN thoughts END [white space] [BEGIN thoughts END [white space]]... rest
///
/// The first BEGIN is missing where the prompt ends with it; an answer that begins otherwise has no
/// thoughts. Those of several pairs are one text, with an empty line between them. A BEGIN behind
/// anything else is part of the rest: models quote it. White space around the thoughts belongs to
/// nobody. Holds back white space, and what may become BEGIN or END.
class ThinkingParser final : public engine::AnswerParser {
 public:
  /// `rest` may be null: the rest is text then. REQUIRES: form.end is not empty.
  ThinkingParser(engine::ThinkingForm form, std::shared_ptr<engine::AnswerParser> rest);

  void push(std::string_view text, std::vector<engine::AnswerPiece>& out) override;
  void finish(std::vector<engine::AnswerPiece>& out) override;
  bool is_thinking() const override { return state_ == State::kThinking; }

 private:
  enum class State : std::uint8_t { kBefore, kThinking, kGap, kRest };

  bool take_begin();
  bool take_thoughts(std::vector<engine::AnswerPiece>& out);
  bool skip_gap();
  void take_rest(std::vector<engine::AnswerPiece>& out);
  void think(std::string_view text, std::vector<engine::AnswerPiece>& out);

  const engine::ThinkingForm form_;
  const std::shared_ptr<engine::AnswerParser> rest_;
  State state_;
  std::string held_;       // What is not decided yet.
  bool at_front_ = true;   // Of a pair of marks: nothing between them so far.
  bool has_said_ = false;  // Something of the thoughts.
};

}  // namespace pensieve::worker
