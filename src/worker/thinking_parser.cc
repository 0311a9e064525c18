#include "worker/thinking_parser.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace pensieve::worker {
namespace {

using engine::AnswerPiece;

constexpr std::string_view kSpaces = " \t\r\n";

std::size_t spaces_before(std::string_view text) {
  return std::min(text.find_first_not_of(kSpaces), text.size());
}

/// How many bytes at the end of `text` must wait: white space, and what may become `mark`.
std::size_t undecided(std::string_view text, std::string_view mark) {
  std::size_t partial = std::min(mark.size() - 1, text.size());
  while (partial > 0 && !mark.starts_with(text.substr(text.size() - partial))) --partial;
  const std::string_view rest = text.substr(0, text.size() - partial);
  const std::size_t last = rest.find_last_not_of(kSpaces);
  return text.size() - (last == std::string_view::npos ? 0 : last + 1);
}

}  // namespace

ThinkingParser::ThinkingParser(engine::ThinkingForm form,
                               std::shared_ptr<engine::AnswerParser> rest)
    : form_(std::move(form)),
      rest_(std::move(rest)),
      state_(form_.opened ? State::kThinking : State::kBefore) {
  PENSIEVE_CHECK(!form_.end.empty() && (form_.opened || !form_.begin.empty()));
}

void ThinkingParser::push(std::string_view text, std::vector<AnswerPiece>& out) {
  held_ += text;
  bool goes_on = true;
  while (goes_on) {
    switch (state_) {
      case State::kBefore:
        goes_on = take_begin();
        break;
      case State::kThinking:
        goes_on = take_thoughts(out);
        break;
      case State::kGap:
        goes_on = skip_gap();
        break;
      case State::kRest:
        take_rest(out);
        goes_on = false;
        break;
    }
  }
}

// Each of these returns whether there is more to do with what is held.

bool ThinkingParser::take_begin() {
  const std::size_t spaces = spaces_before(held_);
  const std::string_view text = std::string_view(held_).substr(spaces);
  if (text.starts_with(form_.begin)) {
    held_.erase(0, spaces + form_.begin.size());
    state_ = State::kThinking;
    return true;
  }
  if (form_.begin.starts_with(text)) return false;
  state_ = State::kRest;
  return true;
}

bool ThinkingParser::take_thoughts(std::vector<AnswerPiece>& out) {
  if (at_front_) held_.erase(0, spaces_before(held_));
  const std::size_t end = held_.find(form_.end);
  if (end == std::string::npos) {
    const std::size_t decided = held_.size() - undecided(held_, form_.end);
    think(std::string_view(held_).substr(0, decided), out);
    held_.erase(0, decided);
    return false;
  }
  const std::string_view thoughts = std::string_view(held_).substr(0, end);
  const std::size_t last = thoughts.find_last_not_of(kSpaces);
  think(thoughts.substr(0, last == std::string_view::npos ? 0 : last + 1), out);
  held_.erase(0, end + form_.end.size());
  state_ = State::kGap;
  return true;
}

bool ThinkingParser::skip_gap() {
  held_.erase(0, spaces_before(held_));
  if (!form_.begin.empty() && held_.starts_with(form_.begin)) {
    held_.erase(0, form_.begin.size());
    at_front_ = true;
    state_ = State::kThinking;
    return true;
  }
  if (form_.begin.starts_with(held_)) return false;
  state_ = State::kRest;
  return true;
}

void ThinkingParser::take_rest(std::vector<AnswerPiece>& out) {
  if (held_.empty()) return;
  if (rest_) {
    rest_->push(held_, out);
  } else {
    out.push_back({AnswerPiece::Kind::kText, held_});
  }
  held_.clear();
}

void ThinkingParser::think(std::string_view text, std::vector<AnswerPiece>& out) {
  if (text.empty()) return;
  const bool is_more = at_front_ && has_said_;
  has_said_ = true;
  at_front_ = false;
  out.push_back({AnswerPiece::Kind::kThinking, (is_more ? "\n\n" : "") + std::string(text)});
}

void ThinkingParser::finish(std::vector<AnswerPiece>& out) {
  if (state_ == State::kThinking) {
    think(held_, out);
  } else {
    take_rest(out);
  }
  held_.clear();
  state_ = State::kRest;
  if (rest_) rest_->finish(out);
}

}  // namespace pensieve::worker
