// From the bytes that a model says to the pieces of its answer.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/answer_parser.h"
#include "engine/engine.h"
#include "worker/text_filter.h"

namespace pensieve::worker {

/// What reads the text of an answer to `prompt`: the engine's own parser, else that of calls in
/// text form, behind the thoughts where there are any. Null: all of it is text. Takes the parser
/// out of `prepared`.
std::shared_ptr<engine::AnswerParser> answer_parser_for(const engine::Prompt& prompt,
                                                        engine::Prepared& prepared);

/// Whole characters, taken apart by a parser, and nothing of a stop sequence.
///
/// Stop sequences are about what a client sees: the text, and the input of calls. They are not
/// looked for in thoughts, nor in how a model spells its calls, nor across two blocks. A call in
/// whose input one is met has no end.
///
/// Ownership: shares the parser. Thread-safety: one thread.
class AnswerText {
 public:
  /// `parser` may be null. REQUIRES: no stop sequence is empty.
  AnswerText(std::vector<std::string> stop_sequences, std::shared_ptr<engine::AnswerParser> parser)
      : stop_sequences_(std::move(stop_sequences)), parser_(std::move(parser)) {}

  /// Takes the next bytes and returns what may be sent now. After a stop sequence has been met,
  /// nothing more comes out.
  std::vector<engine::AnswerPiece> push(std::string_view bytes);

  /// At the end of generation: what was held back. A stop sequence may be met by it.
  std::vector<engine::AnswerPiece> finish();

  /// The stop sequence that was met, if any.
  const std::optional<std::string>& met() const { return met_; }

  /// Whether what was pushed ends inside thoughts.
  bool is_thinking() const { return parser_ && parser_->is_thinking(); }

 private:
  using Pieces = std::vector<engine::AnswerPiece>;

  Pieces parsed(std::string text);
  void pass(std::vector<engine::AnswerPiece> pieces, Pieces& out);
  void pass_stoppable(const engine::AnswerPiece& piece, Pieces& out);
  void end_block(Pieces& out);

  const std::vector<std::string> stop_sequences_;
  const std::shared_ptr<engine::AnswerParser> parser_;
  TextFilter characters_{{}};
  std::optional<TextFilter> stops_;  // Of the block that is open, where it can be stopped.
  engine::AnswerPiece::Kind open_ = engine::AnswerPiece::Kind::kText;  // With stops_.
  std::optional<std::string> met_;
};

}  // namespace pensieve::worker
