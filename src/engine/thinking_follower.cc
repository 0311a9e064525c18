#include "engine/thinking_follower.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace pensieve::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr std::size_t kCharacterBytesMax = 4;

bool contains(const std::vector<Token>& tokens, Token token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

float& logit_of(std::span<float> logits, Token token) {
  PENSIEVE_CHECK(token >= 0 && static_cast<std::size_t>(token) < logits.size());
  return logits[static_cast<std::size_t>(token)];
}

void allow_only(std::span<float> logits, Token token) {
  const float kept = logit_of(logits, token);
  std::fill(logits.begin(), logits.end(), kNever);
  logit_of(logits, token) = kept;
}

/// `follower`'s mask, but for `tokens`.
void mask_except(ShapeFollower& follower, std::span<float> logits, std::span<const Token> tokens) {
  std::vector<float> kept;
  for (const Token token : tokens) kept.push_back(logit_of(logits, token));
  follower.mask(logits);
  for (std::size_t i = 0; i < tokens.size(); ++i) logit_of(logits, tokens[i]) = kept[i];
}

/// Whether `text` does not end inside a UTF-8 character.
bool ends_whole(std::string_view text) {
  std::size_t following = 0;
  while (following < text.size()) {
    const auto byte = static_cast<unsigned char>(text[text.size() - 1 - following]);
    if (byte < 0x80) return following == 0 || following >= kCharacterBytesMax;
    if (byte >= 0xC0) return following + 1 >= (byte >= 0xF0 ? 4U : byte >= 0xE0 ? 3U : 2U);
    if (++following >= kCharacterBytesMax) return true;  // No character is that long.
  }
  return true;
}

bool is_space(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

ThinkingFollower::ThinkingFollower(ThinkingRules rules, MakeFollower make_answer,
                                   AppendPiece append_piece)
    : rules_(std::move(rules)),
      make_answer_(std::move(make_answer)),
      append_piece_(std::move(append_piece)),
      answer_(make_answer_ ? make_answer_() : nullptr),
      state_(rules_.opened ? State::kThinking : State::kBefore) {
  PENSIEVE_CHECK(!rules_.end_text.empty() && !rules_.end.empty());
}

/// The budget is spent. A character is never cut: its rest is at most three tokens.
bool ThinkingFollower::must_close() const {
  return closing_ > 0 || (thoughts_ >= rules_.tokens_max && ends_whole(tail_));
}

void ThinkingFollower::mask(std::span<float> logits) {
  if (state_ == State::kThinking) {
    if (must_close()) {
      allow_only(logits, rules_.end[closing_]);
    } else if (answer_ && rules_.shape_has_thoughts) {
      answer_->mask(logits);
    } else if (answer_) {
      for (const Token stop : rules_.stops) logit_of(logits, stop) = kNever;
    }
    return;
  }
  if (state_ == State::kAnswer) {
    const bool in_gap = gap_left_ > 0;
    const auto spaces = in_gap ? std::span(rules_.spaces) : std::span<const Token>();
    if (answer_) mask_except(*answer_, logits, spaces);
    if (at_front_ && would_reopen(rules_.begin[opened_])) {
      logit_of(logits, rules_.begin[opened_]) = kNever;
    }
    return;
  }
  if (!answer_) return;
  const bool may_open = opened_ < rules_.begin.size() && !rules_.shape_has_thoughts &&
                        (opened_ > 0 || rules_.tokens_max > 0);
  if (may_open && !answer_fits_) {
    allow_only(logits, rules_.begin[opened_]);
  } else if (may_open) {
    mask_except(*answer_, logits, std::span(rules_.begin).subspan(opened_, 1));
  } else {
    answer_->mask(logits);
  }
}

bool ThinkingFollower::accept(Token token) {
  switch (state_) {
    case State::kBefore:
      return accept_before(token);
    case State::kThinking:
      return accept_thought(token);
    case State::kAnswer:
      return accept_answer(token);
  }
  return false;
}

bool ThinkingFollower::accept_before(Token token) {
  const bool opens = opened_ < rules_.begin.size() && token == rules_.begin[opened_];
  const bool fits = answer_fits_ && (!answer_ || answer_->accept(token));
  if (!fits && (!opens || rules_.shape_has_thoughts)) return false;
  if (opens) {
    answer_fits_ = fits;
    if (++opened_ == rules_.begin.size()) state_ = State::kThinking;
    return true;
  }
  ended_ = contains(rules_.stops, token);
  std::string piece;
  append_piece_(token, piece);
  if (ended_ || opened_ > 0 || !is_space(piece)) state_ = State::kAnswer;
  return true;
}

bool ThinkingFollower::accept_thought(Token token) {
  const bool closes = must_close();
  if (closes && token != rules_.end[closing_]) return false;
  const bool stops = contains(rules_.stops, token);
  if (answer_ && !rules_.shape_has_thoughts && stops && !closes) return false;
  if (answer_ && rules_.shape_has_thoughts && !answer_->accept(token)) return false;
  ended_ = stops && !closes;
  ++thoughts_;
  append_piece_(token, tail_);
  const bool is_closed = tail_.find(rules_.end_text) != std::string::npos;
  if (closes) ++closing_;
  if (is_closed || closing_ == rules_.end.size()) {
    begin_answer();
    return true;
  }
  const std::size_t kept = std::max(rules_.end_text.size(), kCharacterBytesMax);
  if (tail_.size() > kept) tail_.erase(0, tail_.size() - kept);
  return true;
}

void ThinkingFollower::begin_answer() {
  state_ = State::kAnswer;
  closing_ = 0;
  tail_.clear();
  opened_ = 0;
  at_front_ = !rules_.begin.empty() && !rules_.shape_has_thoughts;
  gap_left_ = rules_.shape_has_thoughts ? 0 : kGapTokensMax;  // Such a shape says it itself.
  // What was tried in front of the thoughts does not count.
  if (!rules_.shape_has_thoughts) answer_ = make_answer_ ? make_answer_() : nullptr;
}

bool ThinkingFollower::accept_answer(Token token) {
  if (at_front_ && would_reopen(token)) return false;
  if (!answer_ || answer_->accept(token)) {
    gap_left_ = 0;
    ended_ = contains(rules_.stops, token);
    if (at_front_) follow_front(token);
    return true;
  }
  if (gap_left_ == 0 || !contains(rules_.spaces, token)) return false;
  --gap_left_;
  return true;
}

/// Opens thoughts for which nothing is left: they would only be closed again, and again. What comes
/// in place of the mark is said.
bool ThinkingFollower::would_reopen(Token token) const {
  return thoughts_ >= rules_.tokens_max && opened_ + 1 == rules_.begin.size() &&
         token == rules_.begin[opened_];
}

void ThinkingFollower::follow_front(Token token) {
  if (token == rules_.begin[opened_]) {
    if (++opened_ == rules_.begin.size()) state_ = State::kThinking;
    return;
  }
  std::string piece;
  append_piece_(token, piece);
  at_front_ = opened_ == 0 && is_space(piece);
}

bool ThinkingFollower::finished() const {
  return ended_ || (state_ == State::kAnswer && answer_ && answer_->finished());
}

}  // namespace pensieve::engine
