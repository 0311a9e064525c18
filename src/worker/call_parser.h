// Calls in the text form of engine/tool_text.h.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/answer_parser.h"

namespace pensieve::worker {

/// Splits an answer into text and calls:
///
///   text <tool_call> {"name": NAME, "arguments": {...}} </tool_call> text
///
/// White space is free, and white space around a call belongs to nobody. What is no such call is
/// text, its mark included.
///
/// Holds back white space at the end of text, what may become a mark, and at most
/// kHeadBytesMax + kArgumentsBytesMax bytes of a call.
class CallParser final : public engine::AnswerParser {
 public:
  /// From the mark to the arguments; longer is text. Tool names have at most 200 bytes or so.
  static constexpr std::size_t kHeadBytesMax = 1024;
  /// Of one call that is not streamed; longer is text.
  static constexpr std::size_t kArgumentsBytesMax = 1U << 20;

  enum class Trust : std::uint8_t {
    kConstrained,  // A grammar keeps calls valid: arguments go out as they come.
    kFree,         // Any text may come: a call goes out once it is complete.
  };

  explicit CallParser(Trust trust);
  ~CallParser() override;

  void push(std::string_view text, std::vector<engine::AnswerPiece>& out) override;
  void finish(std::vector<engine::AnswerPiece>& out) override;

 private:
  enum class State : std::uint8_t { kText, kHead, kArguments, kTail };

  bool take_text(std::vector<engine::AnswerPiece>& out);
  bool take_head(std::vector<engine::AnswerPiece>& out);
  bool take_arguments(std::vector<engine::AnswerPiece>& out);
  bool take_tail();
  void give_up(std::vector<engine::AnswerPiece>& out);

  struct Json;  // Checks the arguments as they come.

  const Trust trust_;
  State state_ = State::kText;
  std::string held_;  // What is not decided yet.
  std::string call_;  // kFree, from kHead on: the call so far, should it turn out to be text.
  std::string name_;
  std::string arguments_;  // kFree: what was checked so far.
  std::unique_ptr<Json> json_;
  std::size_t tail_taken_ = 0;  // Tokens of what closes a call.
};

}  // namespace pensieve::worker
