#include "gateway/answer_blocks.h"

#include <utility>

#include "api/json.h"
#include "base/error.h"

namespace pensieve::gateway {

std::string AnswerBlocks::add(Kind kind, std::string_view text) {
  std::string events;
  if (open_ != kind) {
    events = close();
    events += open(kind);
  }
  bytes_ += text.size();
  if (streams_) {
    events += delta(text);
  } else {
    blocks_.back().text += text;
  }
  return events;
}

std::string AnswerBlocks::thinking(std::string_view text) {
  switch (display_) {
    case api::ThinkingDisplay::kNone:
      return {};
    case api::ThinkingDisplay::kShown:
      return add(Kind::kThinking, text);
    case api::ThinkingDisplay::kOmitted:
      break;
  }
  std::string events = add(Kind::kThinking, "");
  hidden_ += text;
  bytes_ += text.size();
  return events;
}

/// The start of a text or thinking block; a call's has an id and a name.
std::string AnswerBlocks::open(Kind kind) {
  open_ = kind;
  if (!streams_) {
    blocks_.push_back({.kind = kind, .text = {}});
    return {};
  }
  return format_.block_start(index_, {.kind = kind, .text = {}});
}

std::string AnswerBlocks::close() {
  if (!open_) return {};
  std::string events;
  if (open_ == Kind::kThinking) {
    std::string signature =
        keeps_thoughts() ? api::thinking_signature(hidden_) : std::string(api::kShownSignature);
    hidden_ = std::string();
    if (streams_) {
      events = format_.signature(index_, signature);
    } else {
      blocks_.back().signature = std::move(signature);
    }
  }
  if (streams_) events += format_.block_stop(index_);
  open_.reset();
  ++index_;
  return events;
}

std::string AnswerBlocks::delta(std::string_view text) const {
  return format_.block_delta(index_, open_.value(), text);
}

std::string AnswerBlocks::call_start(std::string_view name) {
  std::string events = close();
  api::AnswerBlock call{.kind = Kind::kToolUse, .text = {}};
  call.id = api::new_id("toolu_");
  call.name = std::string(name);
  open_ = Kind::kToolUse;
  bytes_ += name.size();
  if (streams_) return events + format_.block_start(index_, call);
  blocks_.push_back(std::move(call));
  return events;
}

std::string AnswerBlocks::call_input(std::string_view json) {
  PENSIEVE_CHECK(open_ == Kind::kToolUse);
  bytes_ += json.size();
  if (streams_) return delta(json);
  blocks_.back().input += json;
  return {};
}

std::string AnswerBlocks::call_end() {
  PENSIEVE_CHECK(open_ == Kind::kToolUse);
  ++calls_;
  return close();
}

std::string AnswerBlocks::failed_search(std::string_view query) {
  api::AnswerBlock use{.kind = Kind::kServerToolUse, .text = {}};
  use.id = api::new_id("srvtoolu_");
  use.name = "web_search";
  std::string input = R"({"query":)";
  api::append_json(input, query);
  input += '}';
  api::AnswerBlock result{.kind = Kind::kFailedSearch, .text = {}};
  result.id = use.id;
  if (!streams_) {
    use.input = std::move(input);
    blocks_.push_back(std::move(use));
    blocks_.push_back(std::move(result));
    return {};
  }
  std::string events = format_.block_start(index_, use);
  events += format_.block_delta(index_, Kind::kServerToolUse, input);
  events += format_.block_stop(index_++);
  events += format_.block_start(index_, result);
  return events + format_.block_stop(index_++);
}

std::string AnswerBlocks::keep_awake(bool may_think) {
  if (!streams_) return {};
  const bool thinks = may_think && display_ != api::ThinkingDisplay::kNone;
  std::string events;
  if (!open_) events = open(thinks ? Kind::kThinking : Kind::kText);
  return events + delta("");
}

std::string AnswerBlocks::finish() {
  if (open_ != Kind::kToolUse) return close();
  if (!streams_) blocks_.pop_back();
  open_.reset();
  return {};
}

void AnswerBlocks::forget() {
  if (!streams_) {
    open_.reset();
    index_ = 0;
  }
  hidden_.clear();
  bytes_ = 0;
  calls_ = 0;
  blocks_.clear();
}

}  // namespace pensieve::gateway
