// Grammars over tokens: which token may come next, so that an answer keeps its shape. The one file
// that uses xgrammar.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/grammar_memory.h"
#include "engine/shape_follower.h"

namespace pensieve::engine {

/// One grammar, compiled for one vocabulary; shared by all requests with the same shape.
/// Thread-safety: const.
class TokenGrammar : public AnswerShape {};

/// Where following takes more memory than GrammarMemory has for it, the answer goes on without its
/// grammar, and the log says so: all is allowed from then on.
///
/// Thread-safety: one thread.
class TokenMatcher final : public ShapeFollower {
 public:
  explicit TokenMatcher(std::shared_ptr<const TokenGrammar> grammar);
  TokenMatcher(TokenMatcher&&) noexcept;
  TokenMatcher& operator=(TokenMatcher&&) noexcept;
  ~TokenMatcher() override;

  void mask(std::span<float> logits) override;
  bool accept(Token token) override;
  bool finished() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A schema as a grammar. Properties that it does not name are not allowed where it does not say.
/// Errors: throws xgrammar's.
std::string schema_grammar(std::string_view schema, int spaces_max);

/// schema_grammar() as a format: xgrammar's own always allows spaces, and numbers of any length.
std::string schema_format(std::string_view schema, int spaces_max);

/// What `pattern` matches as a whole, as a grammar. REQUIRES: can_follow_pattern(pattern). Errors:
/// throws xgrammar's.
std::string pattern_grammar(std::string_view pattern);

/// Whether a string's pattern is followed as it stands, inside a JSON string: in ASCII, without
/// what xgrammar does not know (\b, lookaround), and without long repetitions. Of others xgrammar
/// would make a grammar that accepts quotation marks and line breaks, which is no JSON.
bool can_follow_pattern(std::string_view pattern);

/// Compiles structural tags and keeps what it compiled, least recently used out first. What it
/// takes of the heap, with all that was compiled and all that follows it, has the bounds of a
/// GrammarMemory: each allocation is counted, and what would go beyond ends the work.
///
/// Thread-safety: compile() from any thread.
class GrammarCompiler {
 public:
  /// Choice: 25 tools take a second on a busy machine, texts with lengths that differ one to four
  /// each. Nobody but those who ask for an answer waits for it.
  static constexpr Duration kCompileMax = std::chrono::seconds(10);
  /// How long is waited for a compilation that was stopped. It ends with its next large block.
  static constexpr Duration kStopMax = std::chrono::seconds(1);
  /// Compilations that nobody waited for, and schemas that are too large: who asks next is told.
  static constexpr std::size_t kGivenUpMax = 8;
  /// Bytes of their keys. Choice: as much as one structural tag may have.
  static constexpr std::size_t kGivenUpBytesMax = 4U << 20;
  /// Longest structural tag: schemas of hundreds of tools, as grammars, stay below.
  static constexpr std::size_t kTagBytesMax = 4U << 20;

  /// `pieces` has the bytes of each token; empty for tokens that never stand in an answer.
  /// `stop_tokens` end generation.
  GrammarCompiler(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens,
                  const GrammarMemory& memory);
  GrammarCompiler(const std::vector<std::string>& pieces, std::vector<Token> stop_tokens)
      : GrammarCompiler(pieces, std::move(stop_tokens), GrammarMemory::of(pieces.size())) {}
  ~GrammarCompiler();

  /// Writes a structural tag (structural_tag.h); may throw. Called in another thread, perhaps when
  /// the compiler is gone.
  using MakeTag = std::function<std::string()>;

  /// Compiles what `make_tag` writes. Blocks for at most `wait`. `key` is all that the tag depends
  /// on, as a text: a hash would one day give somebody another's grammar. If it is asked for again,
  /// what was given up and is done by then is returned at once.
  /// Errors: kInvalidArgument with xgrammar's words where it cannot be enforced or is too long;
  /// kOutOfMemory where it takes more than there is for it; kDeadlineExceeded; kUnavailable where
  /// it is still being compiled, or kCompilingMax others are. One that takes too long goes on, for
  /// who asks later, as long as no other does.
  Result<std::shared_ptr<const TokenGrammar>> compile(const std::string& key, MakeTag make_tag,
                                                      Duration wait);
  Result<std::shared_ptr<const TokenGrammar>> compile(const std::string& tag);

  /// The same without a limit of time, whatever else is under way. REQUIRES: schemas of ours.
  /// Errors: kInvalidArgument; kUnavailable where others have taken the memory.
  Result<std::shared_ptr<const TokenGrammar>> compile_simple(const std::string& tag);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // Shared with compilations that were given up.
};

}  // namespace pensieve::engine
