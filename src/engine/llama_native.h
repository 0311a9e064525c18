// Tool calls in the form that a model's own template has for them: llama-common knows the forms,
// writes a grammar for each, and reads the answer. With llama_chat.* the only files of ours that
// use llama-common, whose API is not stable.
#pragma once

#include <memory>
#include <string>

#include <chat.h>
#include <llama.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/shape_follower.h"

namespace pensieve::engine {

/// A grammar of llama.cpp that wakes up at a trigger. Thread-safety: const.
class NativeShape final : public AnswerShape {
 public:
  /// REQUIRES: params.grammar is not empty.
  explicit NativeShape(const common_chat_params& params) : params_(params) {}

  /// Errors: kInvalidArgument where llama.cpp cannot read its own grammar.
  Result<std::unique_ptr<ShapeFollower>> follow(const llama_vocab* vocab) const;

 private:
  const common_chat_params params_;
};

/// Follows an answer through `shape`, which one of our compilers made. Null, and a line in the log,
/// where llama.cpp cannot read its own grammar.
std::unique_ptr<ShapeFollower> follow(std::shared_ptr<const AnswerShape> shape,
                                      const llama_vocab* vocab);

/// Reads an answer with the parser that llama-common made for the prompt. Text that it does not
/// understand is text. Parses the whole answer anew at each push, as llama-server does.
std::unique_ptr<AnswerParser> make_native_parser(const common_chat_params& params);

}  // namespace pensieve::engine
