// What the scripted engine says and does in one answer, read from the text of the last user
// message. Pure: it decides, scripted_engine.cc acts.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/attempt.h"
#include "engine/engine.h"

namespace pensieve::engine {

/// Splits `text` without a loss: each piece is a run of white space with the word after it. Runs
/// and words longer than 64 bytes are cut, so a long text without spaces has many pieces too.
std::vector<std::string_view> split_pieces(std::string_view text);

/// A vector of length 1 that is the same for the same tokens only.
std::vector<float> scripted_embedding(std::span<const Token> tokens, std::uint32_t size);

// How it thinks: kThinkingBegin, words, kThinkingEnd.
inline constexpr std::string_view kThinkingBegin = "<think>";
inline constexpr std::string_view kThinkingEnd = "</think>";
/// `text` as the engine says it behind `thinking`, which may be empty.
std::string thoughts_before(std::string_view thinking, std::string_view text);

/// How much an answer may think.
struct ScriptedShape final : AnswerShape {
  explicit ScriptedShape(std::uint32_t words) : words_max(words) {}
  const std::uint32_t words_max;
};

enum class Deed : std::uint8_t {
  kGrow,  // Allocates and touches `amount` MiB, until clear_cache().
  kLeak,  // The same for ever.
  kAbort,
  kSegv,
  kExit,      // With status `amount`.
  kHang,      // Never returns, no progress ticks.
  kSlow,      // `amount` ms in one step, with progress ticks.
  kOom,       // Allocates and touches until the process is killed.
  kBadAlloc,  // Throws std::bad_alloc out of step().
  kFail,      // step() returns kInternal.
};

struct Action {
  Deed deed = Deed::kFail;
  std::uint32_t amount = 0;
  /// Not empty: happens only if this file does not exist, and creates it first.
  std::string once_path;
};

/// One place in an answer: what happens before its token, and the token's bytes.
struct Moment {
  std::vector<Action> actions;  // In this order.
  std::chrono::milliseconds delay{0};
  std::optional<std::string> piece;  // Empty: the answer is over.
  std::optional<Attempt> attempt;    // What comes of it is the piece.
};

/// An answer. After `script:` at the start of a line come statements, separated by `;` or a new
/// line, up to the end of the message:
///
///   think WORDS (thoughts, in front of all else)
///   call NAME JSON (a call of a tool; JSON is an object without `;`)     then (the rest is for the
///   next answer to the same user message: after the results of the calls)
///   say WORDS       repeat N WORD    endless WORD    bytes HEX       delay MS (before each later
///   token) grow MIB        leak MIB         slow MS         exit N          abort  segv  hang  oom
///   badalloc  fail once FILE STATEMENT   STATEMENT is one of the second row, FILE a path without
///   white space
///   try VERB TARGET   does what a confined worker must not (engine/attempt.h); its outcome is a
///   word
///
/// Any other text is answered by `You said: ` and the text; a statement that is none, by its name.
///
/// Thread-safety: const after parse().
class Script {
 public:
  /// `turn` counts the answers to this user message from 0; further turns than there are have the
  /// last one's statements.
  static Script parse(std::string_view user_text, std::size_t turn = 0);

  /// Cuts all thoughts to their first `words` words.
  void limit_thinking(std::size_t words);

  /// What belongs to the answer's token `position`, counted from 0. A function of the position
  /// alone, so an answer goes on rightly after its tokens were computed anew.
  Moment at(std::uint64_t position) const;

 private:
  enum class Kind : std::uint8_t { kText, kDelay, kAction, kAttempt };

  /// One statement; which members count follows from `kind`.
  struct Statement {
    Kind kind = Kind::kText;
    std::vector<std::string> pieces;
    std::uint64_t repeats = 1;
    bool is_raw = false;       // Keeps its first space at the start of an answer.
    bool is_thinking = false;  // The first piece opens the thoughts, the last one closes them.
    std::chrono::milliseconds delay{0};
    Action action;
    Attempt attempt;
  };

  static Statement parse_statement(std::string_view text);
  static std::optional<Statement> parse_text(std::string_view verb, std::string_view rest);
  static std::optional<Action> parse_action(std::string_view verb, std::string_view rest);
  static std::optional<Statement> parse_try(std::string_view rest);
  static Statement text_statement(std::string_view text);

  std::vector<Statement> statements_;
};

}  // namespace pensieve::engine
