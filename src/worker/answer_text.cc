#include "worker/answer_text.h"

#include <utility>

#include "worker/call_parser.h"
#include "worker/thinking_parser.h"

namespace pensieve::worker {

using engine::AnswerPiece;
using Kind = engine::AnswerPiece::Kind;

std::shared_ptr<engine::AnswerParser> answer_parser_for(const engine::Prompt& prompt,
                                                        engine::Prepared& prepared) {
  std::shared_ptr<engine::AnswerParser> parser = std::move(prepared.parser);
  const bool may_call =
      !prompt.tools.empty() && prompt.rules.tool_choice != engine::ToolChoice::kNone;
  if (!parser && may_call) {
    parser = std::make_shared<CallParser>(prepared.keeps_calls ? CallParser::Trust::kConstrained
                                                               : CallParser::Trust::kFree);
  }
  if (!prepared.thinking) return parser;
  return std::make_shared<ThinkingParser>(*prepared.thinking, std::move(parser));
}

std::vector<AnswerPiece> AnswerText::push(std::string_view bytes) {
  Pieces out;
  if (met_) return out;
  pass(parsed(characters_.push(bytes)), out);
  return out;
}

std::vector<AnswerPiece> AnswerText::finish() {
  Pieces out;
  if (met_) return out;
  pass(parsed(characters_.finish()), out);
  if (parser_) {
    Pieces rest;
    parser_->finish(rest);
    pass(std::move(rest), out);
  }
  end_block(out);
  return out;
}

std::vector<AnswerPiece> AnswerText::parsed(std::string text) {
  Pieces pieces;
  if (text.empty()) return pieces;
  if (parser_) {
    parser_->push(text, pieces);
  } else {
    pieces.push_back({Kind::kText, std::move(text)});
  }
  return pieces;
}

void AnswerText::pass(Pieces pieces, Pieces& out) {
  for (AnswerPiece& piece : pieces) {
    const bool can_stop = piece.kind == Kind::kText || piece.kind == Kind::kCallInput;
    if (stops_ && (!can_stop || piece.kind != open_)) end_block(out);
    if (met_) return;
    if (can_stop && !stop_sequences_.empty()) {
      pass_stoppable(piece, out);
    } else {
      out.push_back(std::move(piece));
    }
    if (met_) return;
  }
}

void AnswerText::pass_stoppable(const AnswerPiece& piece, Pieces& out) {
  if (!stops_) stops_.emplace(stop_sequences_);
  open_ = piece.kind;
  std::string text = stops_->push(piece.text);
  if (!text.empty()) out.push_back({piece.kind, std::move(text)});
  met_ = stops_->met();
}

/// What may have become a stop sequence has not.
void AnswerText::end_block(Pieces& out) {
  if (!stops_) return;
  std::string rest = stops_->finish();
  if (!rest.empty()) out.push_back({open_, std::move(rest)});
  stops_.reset();
}

}  // namespace pensieve::worker
