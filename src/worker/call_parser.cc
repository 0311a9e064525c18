#include "worker/call_parser.h"

#include <algorithm>
#include <array>
#include <utility>

#include <boost/json.hpp>

#include "engine/tool_text.h"

namespace pensieve::worker {
namespace {

namespace json = boost::json;
using engine::AnswerPiece;
using Kind = engine::AnswerPiece::Kind;

constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::array<std::string_view, 2> kTail = {"}", "</tool_call>"};
/// Deeper than any schema that a request may bring.
constexpr std::size_t kDepthMax = 128;

void append_text(std::vector<AnswerPiece>& out, std::string_view text) {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == Kind::kText) {
    out.back().text += text;
  } else {
    out.push_back({Kind::kText, std::string(text)});
  }
}

/// How many bytes at the end of `text` must wait: white space, and what may become the mark.
std::size_t undecided(std::string_view text) {
  std::size_t partial = 0;
  for (std::size_t length = std::min(engine::kCallMark.size() - 1, text.size()); length > 0;
       --length) {
    if (engine::kCallMark.starts_with(text.substr(text.size() - length))) {
      partial = length;
      break;
    }
  }
  const std::string_view rest = text.substr(0, text.size() - partial);
  const std::size_t last = rest.find_last_not_of(kSpaces);
  return text.size() - (last == std::string_view::npos ? 0 : last + 1);
}

/// Reads `{"name": NAME, "arguments":` from the front of a text that may be incomplete.
class Head {
 public:
  enum class Verdict : std::uint8_t { kIncomplete, kNoCall, kComplete };

  explicit Head(std::string_view text) : text_(text) {}

  Verdict read() {
    for (const std::string_view token : {"{", "\"name\"", ":"}) {
      if (const Verdict verdict = expect(token); verdict != Verdict::kComplete) return verdict;
    }
    if (const Verdict verdict = read_name(); verdict != Verdict::kComplete) return verdict;
    for (const std::string_view token : {",", "\"arguments\"", ":", "{"}) {
      if (const Verdict verdict = expect(token); verdict != Verdict::kComplete) return verdict;
    }
    --at_;  // The brace belongs to the arguments.
    return Verdict::kComplete;
  }

  const std::string& name() const { return name_; }
  std::size_t length() const { return at_; }

 private:
  void skip_spaces() { at_ = std::min(text_.find_first_not_of(kSpaces, at_), text_.size()); }

  Verdict expect(std::string_view token) {
    skip_spaces();
    const std::string_view rest = text_.substr(at_);
    if (rest.starts_with(token)) {
      at_ += token.size();
      return Verdict::kComplete;
    }
    return token.starts_with(rest) ? Verdict::kIncomplete : Verdict::kNoCall;
  }

  Verdict read_name() {
    skip_spaces();
    if (at_ == text_.size()) return Verdict::kIncomplete;
    if (text_[at_] != '"') return Verdict::kNoCall;
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != '"') end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) return Verdict::kIncomplete;
    boost::system::error_code error;
    const json::value name = json::parse(text_.substr(at_, end + 1 - at_), error);
    if (error || name.as_string().empty()) return Verdict::kNoCall;
    name_ = name.as_string();
    at_ = end + 1;
    return Verdict::kComplete;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string name_;
};

}  // namespace

struct CallParser::Json {
  Json() { parser.reset(); }
  json::stream_parser parser{json::storage_ptr(), options()};

  static json::parse_options options() {
    json::parse_options depth;
    depth.max_depth = kDepthMax;
    return depth;
  }
};

CallParser::CallParser(Trust trust) : trust_(trust) {}
CallParser::~CallParser() = default;

void CallParser::push(std::string_view text, std::vector<AnswerPiece>& out) {
  held_ += text;
  bool goes_on = true;
  while (goes_on) {
    switch (state_) {
      case State::kText:
        goes_on = take_text(out);
        break;
      case State::kHead:
        goes_on = take_head(out);
        break;
      case State::kArguments:
        goes_on = take_arguments(out);
        break;
      case State::kTail:
        goes_on = take_tail();
        break;
    }
  }
}

// Each take_ function returns whether there is more to do with what is held.

bool CallParser::take_text(std::vector<AnswerPiece>& out) {
  const std::size_t mark = held_.find(engine::kCallMark);
  if (mark == std::string::npos) {
    const std::size_t decided = held_.size() - undecided(held_);
    append_text(out, std::string_view(held_).substr(0, decided));
    held_.erase(0, decided);
    return false;
  }
  const std::string_view before = std::string_view(held_).substr(0, mark);
  const std::size_t last = before.find_last_not_of(kSpaces);
  const std::size_t spaces_from = last == std::string_view::npos ? 0 : last + 1;
  append_text(out, before.substr(0, spaces_from));
  // The white space is kept with the call: it comes back where the call is none.
  call_ = held_.substr(spaces_from, mark - spaces_from);
  call_ += engine::kCallMark;
  held_.erase(0, mark + engine::kCallMark.size());
  state_ = State::kHead;
  return true;
}

bool CallParser::take_head(std::vector<AnswerPiece>& out) {
  Head head(held_);
  const Head::Verdict verdict = head.read();
  if (verdict == Head::Verdict::kNoCall || held_.size() > kHeadBytesMax + kArgumentsBytesMax ||
      (verdict == Head::Verdict::kIncomplete && held_.size() > kHeadBytesMax)) {
    give_up(out);
    return true;
  }
  if (verdict == Head::Verdict::kIncomplete) return false;
  call_ += held_.substr(0, head.length());
  held_.erase(0, head.length());
  name_ = head.name();
  arguments_.clear();
  json_ = std::make_unique<Json>();
  state_ = State::kArguments;
  if (trust_ == Trust::kConstrained) out.push_back({Kind::kCallStart, name_});
  return true;
}

bool CallParser::take_arguments(std::vector<AnswerPiece>& out) {
  if (held_.empty()) return false;
  boost::system::error_code error;
  const std::size_t taken = json_->parser.write_some(held_.data(), held_.size(), error);
  if (error || arguments_.size() + taken > kArgumentsBytesMax) {
    if (trust_ == Trust::kFree) {
      give_up(out);
      return true;
    }
    held_.clear();  // The grammar failed us: the call stays open, as one that was cut off.
    return false;
  }
  // The parser also takes the white space behind a complete value.
  const std::string part = held_.substr(
      0, json_->parser.done() ? held_.find_last_not_of(kSpaces, taken - 1) + 1 : taken);
  if (trust_ == Trust::kConstrained) {
    out.push_back({Kind::kCallInput, part});
  } else {
    arguments_ += part;
    call_ += part;
  }
  held_.erase(0, taken);
  if (!json_->parser.done()) return false;
  if (trust_ == Trust::kFree) {
    out.push_back({Kind::kCallStart, std::move(name_)});
    out.push_back({Kind::kCallInput, std::move(arguments_)});
  }
  out.push_back({Kind::kCallEnd, {}});
  json_.reset();
  call_.clear();
  tail_taken_ = 0;
  state_ = State::kTail;
  return true;
}

/// `}` and `</tool_call>`, and the white space around them. Either may be missing.
bool CallParser::take_tail() {
  while (true) {
    held_.erase(0, held_.find_first_not_of(kSpaces));
    if (held_.empty()) return false;
    if (tail_taken_ == kTail.size()) {
      state_ = State::kText;
      return true;
    }
    const std::string_view token = kTail[tail_taken_];
    if (held_.starts_with(token)) {
      held_.erase(0, token.size());
    } else if (token.starts_with(held_)) {
      return false;
    }
    ++tail_taken_;
  }
}

/// What looked like a call is text.
void CallParser::give_up(std::vector<AnswerPiece>& out) {
  append_text(out, call_);
  call_.clear();
  json_.reset();
  state_ = State::kText;
}

void CallParser::finish(std::vector<AnswerPiece>& out) {
  // A grammar stands behind a call: one that was cut off is no text either.
  const bool is_cut = trust_ == Trust::kConstrained && state_ != State::kText;
  if (!is_cut && state_ != State::kTail) {
    append_text(out, call_);
    append_text(out, held_);
  }
  held_.clear();
  call_.clear();
  json_.reset();
  state_ = State::kText;
}

}  // namespace pensieve::worker
