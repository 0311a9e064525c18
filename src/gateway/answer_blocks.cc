#include "gateway/answer_blocks.h"

#include <utility>

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

/// The start of a text or thinking block; a call's has an id and a name.
std::string AnswerBlocks::open(Kind kind) {
  open_ = kind;
  if (!streams_) {
    blocks_.push_back({.kind = kind, .text = {}});
    return {};
  }
  return kind == Kind::kText ? api::text_block_start_event(index_)
                             : api::thinking_block_start_event(index_);
}

std::string AnswerBlocks::close() {
  if (!open_) return {};
  std::string events;
  if (streams_) {
    if (open_ == Kind::kThinking) events = api::signature_delta_event(index_);
    events += api::block_stop_event(index_);
  }
  open_.reset();
  ++index_;
  return events;
}

std::string AnswerBlocks::delta(std::string_view text) const {
  switch (open_.value()) {
    case Kind::kText:
      return api::text_delta_event(index_, text);
    case Kind::kThinking:
      return api::thinking_delta_event(index_, text);
    case Kind::kToolUse:
      return api::input_json_delta_event(index_, text);
  }
  return {};
}

std::string AnswerBlocks::call_start(std::string_view name) {
  std::string events = close();
  const std::string id = api::new_id("toolu_");
  open_ = Kind::kToolUse;
  bytes_ += name.size();
  if (!streams_) {
    blocks_.push_back({.kind = Kind::kToolUse, .text = {}, .id = id, .name = std::string(name)});
    return events;
  }
  return events + api::tool_use_block_start_event(index_, id, name);
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

std::string AnswerBlocks::keep_awake() {
  if (!streams_) return {};
  std::string events;
  if (!open_) events = open(Kind::kText);
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
  bytes_ = 0;
  calls_ = 0;
  blocks_.clear();
}

}  // namespace pensieve::gateway
