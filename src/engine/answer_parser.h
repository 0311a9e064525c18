// What a model's text means: words for the user, thoughts, and calls of tools.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pensieve::engine {

struct AnswerPiece {
  enum class Kind : std::uint8_t {
    kText,
    kThinking,
    kCallStart,  // `text` is the tool's name.
    kCallInput,  // `text` is the next part of the arguments' JSON.
    kCallEnd,    // The arguments are complete and valid JSON.
  };
  Kind kind = Kind::kText;
  std::string text;

  bool operator==(const AnswerPiece&) const = default;
};

/// How a model writes its thoughts, in front of its answer.
struct ThinkingForm {
  std::string begin;    // "<think>"
  std::string end;      // "</think>"
  bool opened = false;  // The prompt ends inside the thoughts.
};

/// Takes an answer's text as it comes and says what it means. Pieces come in order; after a
/// kCallStart only kCallInput follows until kCallEnd; a call without kCallEnd was cut off.
///
/// Ownership: one per answer. Thread-safety: one thread. Never fails: what cannot be understood is
/// text.
class AnswerParser {
 public:
  virtual ~AnswerParser() = default;

  /// `text` is whole UTF-8 characters. Appends to `out`.
  virtual void push(std::string_view text, std::vector<AnswerPiece>& out) = 0;

  /// The answer is over: what was held back.
  virtual void finish(std::vector<AnswerPiece>& out) = 0;

  /// Whether the text so far ends inside thoughts, their own marks included.
  virtual bool is_thinking() const { return false; }
};

}  // namespace pensieve::engine
