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

/// Compiles what structural_tag() says. A schema that xgrammar cannot enforce, or not in time, is
/// replaced by the next weaker one that it can (an object, or any JSON), from then on at once; the
/// log says so the first time: a client's exotic schema must not end its session.
///
/// Thread-safety: any thread.
class AnswerGrammars {
 public:
  /// Schemas that are known to be hopeless; then they are all tried, and told, again.
  static constexpr std::size_t kHopelessMax = 256;

  AnswerGrammars(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens)
      : compiler_(pieces, std::move(stop_tokens)) {}

  /// Null where every answer is right. Blocks for at most GrammarCompiler::kCompileMax, and as
  /// often again as schemas turn out to be hopeless, up to kCompilingMax times. Errors:
  /// kInvalidArgument where even the weakest grammar cannot be compiled.
  Result<std::shared_ptr<const TokenGrammar>> of(const Prompt& prompt,
                                                 const CallSpelling& spelling);

 private:
  enum class Verdict : std::uint8_t { kFine, kHopeless, kNotNow };

  Verdict judge(const Prompt& prompt, const CallSpelling& spelling);
  /// What `schema` becomes: itself, or `weaker` where it cannot be enforced.
  std::string enforceable(const std::string& schema, const std::string& weaker, Verdict verdict,
                          const std::string& what);
  Prompt without_hopeless(const Prompt& prompt);
  Prompt weakened(const Prompt& prompt, const CallSpelling& spelling);
  bool is_hopeless(const std::string& schema);
  /// True the first time.
  bool note_hopeless(const std::string& schema);

  GrammarCompiler compiler_;
  std::mutex mutex_;
  std::set<std::size_t> hopeless_;  // Hashes of schemas. Guarded by mutex_.
};

}  // namespace pensieve::engine
