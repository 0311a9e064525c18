// The places in the KV cache: what each holds, who runs in it, and which prefix a newcomer re-uses.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "worker/answer_text.h"
#include "worker/prefix_exchange.h"

namespace pensieve::worker {

/// A request whose prompt is tokenised and fits the window.
struct Job {
  std::uint32_t id = 0;
  std::vector<engine::Token> prompt;  // At least one token.
  std::uint32_t output_tokens_max = 1;
  std::vector<std::string> stop_sequences;
  engine::Sampling sampling;
  std::shared_ptr<const engine::AnswerShape> shape = nullptr;    // Null: every answer is right.
  std::shared_ptr<engine::AnswerParser> parser = nullptr;        // Null: all of it is text.
  std::shared_ptr<const engine::PromptImages> images = nullptr;  // Null: there are none.
};

/// A job between its acceptance and its end, whether it waits or has a place.
struct Running {
  Running(Job taken, std::uint64_t place);

  Job job;
  std::vector<engine::Token> tokens;  // Prompt and what was sampled.
  std::uint32_t output_tokens = 0;
  std::uint32_t thinking_tokens = 0;  // Of those.
  std::uint64_t order = 0;            // Smaller is older.
  AnswerText answer;
  TimePoint started_at;
  TimePoint first_token_at;
  bool is_accepted = false;       // accepted() was sent.
  bool is_started = false;        // started() was sent (not again after it gave up its cells).
  PrefixExchange::Search search;  // For a stored prefix, before it has a place.
  /// Since when it cannot go on, even alone, with the cells that there are.
  std::optional<TimePoint> short_since;
};

struct Sequence {
  engine::SequenceId id = 0;
  std::vector<engine::Token> held;   // What the engine holds for it.
  std::unique_ptr<Running> running;  // Null: idle; `held` is kept for re-use.
  std::uint64_t used_at = 0;         // Larger is later.
  TimePoint idle_since;              // Where idle.
  bool is_stored = false;            // Where idle: a copy is on disk, or on its way there.

  /// Tokens that its request still has to process. REQUIRES: it has one.
  std::uint32_t pending() const {
    return static_cast<std::uint32_t>(running->tokens.size() - held.size());
  }
};

/// Ownership: borrows the engine; nobody else tells it what sequences hold, except for steps: who
/// steps also appends to Sequence::held.
/// Thread-safety: the loop's thread only.
class Sequences {
 public:
  /// An idle sequence is taken out of the cache after so long while others run, whose attention
  /// walks over its cells: measured, four kept conversations cost 14 % of the speed of a fifth.
  static constexpr Duration kParkIdleAfter = std::chrono::seconds(1);

  /// How often rest() looks: at each token it would cost more than it gains.
  static constexpr Duration kLookEvery = std::chrono::milliseconds(250);

  /// `exchange` keeps what leaves the cache; null: it is forgotten.
  Sequences(engine::Engine& engine, std::uint32_t count, PrefixExchange* exchange);

  std::span<Sequence> all() { return sequences_; }

  std::uint32_t running() const;
  std::uint32_t held_tokens() const;
  std::uint32_t cells_used() const { return engine_.cells() - engine_.cells_free(); }
  /// What running requests hold, a shared cell once.
  std::uint32_t cells_of_running() const;
  /// Tokens that running requests still have to process.
  std::uint64_t pending_tokens() const;

  /// The longest common prefix of `tokens` and what any sequence holds, less the last token: that
  /// is always processed, its logits give the first new token. It cuts no picture: a part of one
  /// cannot be processed.
  struct Match {
    Sequence* sequence = nullptr;
    std::uint32_t tokens = 0;
  };
  Match best_match(const std::vector<engine::Token>& tokens);

  /// New cells that a request of these tokens takes at most, given that `match` stays.
  std::uint32_t new_cells(const std::vector<engine::Token>& tokens, const Match& match) const;

  /// Where a newcomer would go: an empty place, else the idle one that was least recently used.
  /// Null where all run.
  Sequence* free_place();

  /// Whether a job should not get its place yet: what it begins with is being read from disk.
  bool must_wait(Running& running);

  struct Placed {
    Sequence* sequence = nullptr;
    std::uint32_t kept = 0;  // Of the tokens, already held there.
  };
  /// Makes a place for `tokens` that holds as much of them as can be re-used, and nothing else.
  /// REQUIRES: free_place() != nullptr.
  Placed place(const std::vector<engine::Token>& tokens);

  Sequence* oldest_idle();     // Of those that hold something; null where none does.
  Sequence* newest_running();  // Null where none runs.

  /// The one way by which what a sequence without a request holds leaves the engine, other than to
  /// make way for a longer version of itself. Returns how many tokens that were.
  /// It is parked outside of the cache where there is room. REQUIRES: nobody runs in it.
  std::uint32_t let_go(Sequence& sequence);
  /// Lets go of idle sequences, least recently used first, until at most `cells` cells are used or
  /// none is left. Returns the tokens.
  std::uint32_t let_go_until(std::uint32_t cells);

  /// Forgets all idle sequences, and keeps none outside: memory is short, or somebody wants it so.
  std::uint32_t forget_idle();
  /// Parks a copy of what a request holds that is about to give up its cells.
  void keep_copy(const Sequence& sequence);

  /// Parks what has been idle for kParkIdleAfter while others run, and gives to the disk what has
  /// rested longer; one sequence per call. Call at each turn.
  void rest(TimePoint now);
  /// Whether rest() has anything left to do when time passes.
  bool is_restless() const;
  /// At the end: gives idle sequences to the disk, the latest first, one per call. False: there is
  /// none left, or no room for one now.
  bool store_one();

  /// After a change of the cells: takes over what the engine says that it still holds.
  void confirm_held();

 private:
  std::vector<engine::SequenceId> running_ids() const;
  std::uint32_t keep(Sequence& target, Sequence* from, std::uint32_t tokens);
  std::optional<Placed> restore(const std::vector<engine::Token>& tokens);
  Placed place_any(const std::vector<engine::Token>& tokens);

  engine::Engine& engine_;
  PrefixExchange* const exchange_;
  std::optional<TimePoint> looked_at_;  // By rest().
  std::vector<Sequence> sequences_;
  bool engine_shares_ = true;  // Until it did not.
};

}  // namespace pensieve::worker
