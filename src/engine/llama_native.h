// Tool calls in the form that a model's own template has for them: llama-common knows the forms,
// writes a grammar for each, and reads the answer. With llama_template.* the only files of ours
// that use llama-common, whose API is not stable.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <chat.h>
#include <llama.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/shape_follower.h"
#include "engine/thinking_follower.h"

namespace pensieve::engine {

/// A grammar of llama.cpp that wakes up at a trigger. Thread-safety: const.
class NativeShape final : public AnswerShape {
 public:
  /// REQUIRES: params.grammar is not empty.
  explicit NativeShape(const common_chat_params& params) : params_(params) {}

  /// Wakes up at a trigger; else it is about the whole answer, thoughts included.
  bool is_lazy() const { return params_.grammar_lazy; }

  /// Errors: kInvalidArgument where llama.cpp cannot read its own grammar.
  Result<std::unique_ptr<ShapeFollower>> follow(const llama_vocab* vocab) const;

 private:
  const common_chat_params params_;
};

/// Thoughts within their budget, then an answer of another shape.
struct ThinkingShape final : AnswerShape {
  ThinkingShape(ThinkingRules its_rules, std::shared_ptr<const AnswerShape> its_answer)
      : rules(std::move(its_rules)), answer(std::move(its_answer)) {}

  const ThinkingRules rules;
  const std::shared_ptr<const AnswerShape> answer;  // Null: every answer is right.
};

/// The tokens of `text`, control tokens as such, and none that the tokenizer would add.
std::vector<Token> tokens_as_written(const llama_vocab* vocab, const std::string& text);

/// Appends the bytes of `token`; those of a control token only where `shows_control`.
void append_piece(const llama_vocab* vocab, Token token, bool shows_control, std::string& out);

/// Follows an answer through `shape`, which one of our compilers made. Null, and a line in the log,
/// where llama.cpp cannot read its own grammar, or where `shape` is null.
std::unique_ptr<ShapeFollower> follow(std::shared_ptr<const AnswerShape> shape,
                                      const llama_vocab* vocab);

/// Reads an answer with the parser that llama-common made for the prompt. Text that it does not
/// understand is text. Parses the whole answer anew at each push, as llama-server does.
std::unique_ptr<AnswerParser> make_native_parser(const common_chat_params& params);

}  // namespace pensieve::engine
