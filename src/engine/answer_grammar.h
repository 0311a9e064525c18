// The grammar of a prompt's answers, as far as its schemas can be enforced.
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/structural_tag.h"
#include "engine/token_grammar.h"

namespace pensieve::engine {

/// Compiles what structural_tag() says. A schema that xgrammar cannot enforce is replaced by the
/// next weaker one that it can (an object, then any JSON), and the log says so once per schema: a
/// client's exotic schema must not end its session.
///
/// Thread-safety: any thread.
class AnswerGrammars {
 public:
  /// Schemas whose weakening was logged; the log repeats itself beyond.
  static constexpr std::size_t kNotedMax = 256;

  AnswerGrammars(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens)
      : compiler_(pieces, std::move(stop_tokens)) {}

  /// Null where every answer is right. Errors: kInvalidArgument where the tools and schemas are too
  /// long, or where even the weakest grammar cannot be compiled.
  Result<std::shared_ptr<const TokenGrammar>> of(const Prompt& prompt,
                                                 const CallSpelling& spelling);

 private:
  bool can_enforce(const Prompt& prompt, const CallSpelling& spelling);
  Prompt weakened(const Prompt& prompt, const CallSpelling& spelling);
  void note(const std::string& what, const std::string& schema);

  GrammarCompiler compiler_;
  std::mutex mutex_;
  std::set<std::string> noted_;  // Guarded by mutex_.
};

}  // namespace pensieve::engine
