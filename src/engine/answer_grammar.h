// The grammar of a prompt's answers, as far as its schemas can be enforced.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/native_form.h"
#include "engine/structural_tag.h"
#include "engine/token_grammar.h"

namespace pensieve::engine {

/// How much of a request's schemas a grammar keeps.
enum class SchemaStrength : std::uint8_t {
  kWhole,
  kSimpler,  // simpler_schema().
  kNone,     // An object, or any JSON.
};

/// Compiles what structural_tag() says of schemas in the form of schema_normalize.h. What of a
/// schema cannot be enforced is left out, there alone. Where all of it takes too long, or
/// more memory than there is for it, the answer keeps what compiles fast (schema_simpler.h), and
/// what was slow is compiled on for those who ask later; where that takes too much as well, objects
/// or any JSON are accepted. The log says each once: a
/// client's exotic schema must not end its session.
///
/// Thread-safety: any thread.
class AnswerGrammars {
 public:
  /// How long is waited for the grammar without patterns and counts, after kCompileMax. Choice:
  /// both together stay well below what a worker takes for a hang (Preparer::kPrepareMax).
  static constexpr Duration kSimplerCompileMax = std::chrono::seconds(3);

  AnswerGrammars(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens)
      : compiler_(pieces, std::move(stop_tokens)) {}
  AnswerGrammars(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens,
                 const GrammarMemory& memory)
      : compiler_(pieces, std::move(stop_tokens), memory) {}

  /// Null where every answer is right. Blocks for at most GrammarCompiler::kCompileMax and
  /// kSimplerCompileMax, however many tools there are. Errors: kInvalidArgument where even the
  /// weakest grammar cannot be compiled; kUnavailable where there is no memory for it now.
  Result<std::shared_ptr<const TokenGrammar>> of(const Prompt& prompt,
                                                 const CallSpelling& spelling);

  /// `tools` with parameters in the form of schema_normalize.h, as of_native() wants them.
  static std::vector<Tool> known(std::vector<Tool> tools);

  /// The same for text, and calls in a template's own form at its end. `form` is that of
  /// stand_ins(calls). Errors as of(); also where the form is not what `arguments` says.
  Result<std::shared_ptr<const TokenGrammar>> of_native(const NativeForm& form,
                                                        const NativeArguments& arguments,
                                                        const std::vector<NativeCall>& calls);

 private:
  using TagOf = std::function<std::string(SchemaStrength)>;  // May throw.
  Result<std::shared_ptr<const TokenGrammar>> compile(const std::string& key, const TagOf& tag);

  GrammarCompiler compiler_;
};

}  // namespace pensieve::engine
