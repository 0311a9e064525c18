// From what a worker says to the content blocks of an answer: events where it is streamed, a list
// where it is sent whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/answer_format.h"
#include "api/response.h"
#include "api/thinking.h"

namespace pensieve::gateway {

/// Opens and closes blocks so that exactly one is open at a time, in the order in which clients
/// want them. Each function returns the events to send; nothing where the answer is sent whole.
///
/// A call's block is closed only by call_end(): its input is complete then. One that was cut off
/// stays open in a stream, where clients drop it, and is left out of a whole answer.
///
/// Pure bookkeeping. Thread-safety: one thread.
class AnswerBlocks {
 public:
  /// `format` renders the events and must outlive the blocks.
  AnswerBlocks(api::AnswerFormat& format, bool streams, api::ThinkingDisplay display)
      : format_(format), streams_(streams), display_(display) {}

  std::string text(std::string_view text) { return add(Kind::kText, text); }
  /// Shown, kept for the block's signature, or dropped, as `display` says.
  std::string thinking(std::string_view text);
  bool keeps_thoughts() const { return display_ == api::ThinkingDisplay::kOmitted; }
  std::string call_start(std::string_view name);
  /// REQUIRES, as call_end() does: in_call().
  std::string call_input(std::string_view json);
  std::string call_end();
  bool in_call() const { return open_ == Kind::kToolUse; }
  /// A web search of the server for `query`, without a result. Comes before all else, and is no
  /// content: another worker may still take over.
  std::string failed_search(std::string_view query);
  /// Something to keep a client awake: an empty delta of the open block, or of a new one. That is
  /// of thoughts where some were asked for and `may_think`, else of text: the answer goes on in it.
  std::string keep_awake(bool may_think);
  /// The answer is over.
  std::string finish();

  /// Bytes of content so far: what a client has seen, or will.
  std::size_t bytes() const { return bytes_; }
  /// Calls whose input is complete.
  std::uint32_t calls() const { return calls_; }
  /// Of a whole answer, after finish().
  std::span<const api::AnswerBlock> blocks() const { return blocks_; }

  /// Starts anew. REQUIRES: bytes() is 0, or the answer is sent whole.
  void forget();

 private:
  using Kind = api::AnswerBlock::Kind;

  std::string add(Kind kind, std::string_view text);
  std::string open(Kind kind);
  std::string close();
  std::string delta(std::string_view text) const;

  api::AnswerFormat& format_;
  const bool streams_;
  const api::ThinkingDisplay display_;
  std::string hidden_;  // Thoughts of the open block that are not shown.
  std::optional<Kind> open_;
  std::uint32_t index_ = 0;  // Of the open block, or of the next one.
  std::size_t bytes_ = 0;
  std::uint32_t calls_ = 0;
  std::vector<api::AnswerBlock> blocks_;  // Empty where the answer is streamed.
};

}  // namespace pensieve::gateway
