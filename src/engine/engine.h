// The one interface to inference. Everything above it (batch loop, worker, gateway, api) speaks
// these plain types; only engine/<name>.cc sees the headers of an inference library.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/answer_parser.h"
#include "engine/prompt.h"

namespace pensieve::engine {

using Token = std::int32_t;

/// Positions that hold a part of a picture instead of a token have a negative value: the hash of
/// the picture's file and of the position in it, in 30 bits, and whether it is the first position.
/// So lists of tokens are all that tells prefixes apart: the same picture is the same tokens, and
/// another one is not, at any position.
constexpr bool is_image(Token token) {
  return token < 0;
}
constexpr bool starts_image(Token token) {
  return token < 0 && (static_cast<std::uint32_t>(~token) >> 30) == 1;
}
constexpr Token image_token(std::uint32_t hash, bool is_first) {
  return ~static_cast<Token>((hash & 0x3FFFFFFFU) | (is_first ? 1U << 30 : 0U));
}

/// How many of the first `tokens` tokens end where no picture is cut.
constexpr std::uint32_t whole_images(std::span<const Token> all, std::uint32_t tokens) {
  while (tokens > 0 && tokens < all.size() && is_image(all[tokens]) && !starts_image(all[tokens])) {
    --tokens;
  }
  return tokens;
}

/// One of the `sequences_max` places in the KV cache, counted from 0. A sequence is the list of
/// tokens that its place holds; the caller keeps that list, the engine keeps the KV of it.
using SequenceId = std::uint32_t;

/// Bytes of text that a window of so many tokens takes at most. English has four a token and runs
/// of spaces up to 128, so it is a limit that only such runs meet before the window does. It bounds
/// what tokenising takes: measured up to 155 times the text, and 37 for English.
constexpr std::uint64_t prompt_bytes_max(std::uint32_t context_tokens) {
  constexpr std::uint64_t kPromptBytesPerToken = 16;
  constexpr std::uint64_t kLeast = 64ULL << 10;
  const std::uint64_t bytes = kPromptBytesPerToken * context_tokens;
  return bytes > kLeast ? bytes : kLeast;
}

/// Unset means the engine's default for the model; the request decides where it says something.
struct Sampling {
  std::optional<float> temperature;   // 0 is greedy. In [0, 2].
  std::optional<float> top_p;         // In (0, 1].
  std::optional<std::int32_t> top_k;  // >= 1.
  std::optional<std::uint32_t> seed;
};

struct LoadOptions {
  std::string model_path;
  std::string projector_path = {};  // What reads images for the model; empty: it cannot see.
  /// The window: most tokens that one sequence may hold. 0: what the model was trained for.
  std::uint32_t context_tokens = 0;
  /// Cells of the KV cache at first, shared by all sequences; resize() changes them. 0: the window.
  std::uint32_t cells = 0;
  /// Most cells that a worker may ask its gateway for; engines ignore it. 0: as many as at first,
  /// so that it never asks.
  std::uint32_t cells_max = 0;
  std::uint32_t sequences_max = 4;
  /// Most tokens in one step(); compute buffers grow with it.
  std::uint32_t step_tokens_max = 512;
  std::uint32_t threads = 1;
};

/// Upper bound of the memory that a load with the same options takes, by part.
struct MemoryEstimate {
  /// File-backed pages: the kernel counts them as available, but the model is unusable without.
  Bytes weights_mapped;
  Bytes weights_copied;  // Anonymous copies of weights (repacking, no mmap).
  Bytes kv;
  Bytes compute;
  Bytes process;     // Vocabulary, allocator, stacks, code.
  Bytes images{};    // The projector: weights, buffers, pictures while they are read.
  Bytes grammars{};  // Compiled schemas, compilers, followers of answers.

  constexpr Bytes anonymous() const {
    return Bytes(weights_copied.count() + kv.count() + compute.count() + process.count() +
                 images.count() + grammars.count());
  }
  constexpr Bytes total() const { return Bytes(anonymous().count() + weights_mapped.count()); }
};

struct Plan {
  MemoryEstimate estimate;                 // With `cells` cells.
  std::uint32_t context_tokens = 0;        // The window that a load would give; never 0.
  std::uint32_t context_train_tokens = 0;  // The window that the model was trained for.
  std::uint32_t cells = 0;                 // What a load would give; never 0.
  /// Upper bound of what a resize() copies aside when `cells` cells are used. A resize between two
  /// numbers of cells takes, for its duration, this of the smaller number on top of the larger
  /// estimate: what is kept must fit both.
  Bytes resize_copy;
};

/// What an engine can do with the model that it has loaded. Clients are told; only embeddings, and
/// answers of a model that gives embeddings, are refused because of it.
struct Capabilities {
  bool structured_outputs = false;  // Answers keep a JSON schema, whatever the model would say.
  bool thinking = false;            // Answers may have thoughts, and those a limit.
  bool image_input = false;
  bool embeddings = false;

  bool operator==(const Capabilities&) const = default;
};

struct ModelInfo {
  std::string description;  // E.g. "llama 135M Q4_1", for people.
  std::uint32_t context_tokens = 0;
  std::uint32_t context_train_tokens = 0;
  std::uint32_t cells = 0;
  Capabilities capabilities = {};
};

/// What one sequence contributes to a step: its next tokens, in order, after those it holds.
struct StepInput {
  SequenceId sequence = 0;
  /// At least one. Either no part of a picture, or one whole picture (from starts_image() to the
  /// next token that starts one or is none), which is then the only input of the step.
  std::span<const Token> tokens;
  bool samples = false;  // Sample the token that follows the last of `tokens`.
};

/// What an answer may look like, in the engine's own form (a compiled grammar).
class AnswerShape {
 public:
  virtual ~AnswerShape() = default;
};

/// The files of a prompt's pictures, and where they stand among its tokens, in the engine's own
/// form.
class PromptImages {
 public:
  virtual ~PromptImages() = default;
};

/// A prompt that is ready to be processed, and what belongs to its answer.
struct Prepared {
  std::vector<Token> tokens;
  std::shared_ptr<const AnswerShape> shape = nullptr;  // Null: every answer is right.
  /// Null: calls stand in the answer as engine/tool_text.h writes them.
  std::unique_ptr<AnswerParser> parser = nullptr;
  bool keeps_calls = false;  // `shape` keeps such calls valid as they come.
  /// What stands in front of what `parser` reads; empty where the parser sees to it, or where the
  /// model does not think.
  std::optional<ThinkingForm> thinking = std::nullopt;
  std::shared_ptr<const PromptImages> images = nullptr;  // Null: there are none.
};

/// Shows that work inside a long call goes on; a watchdog tells "slow" from "hung" by it.
/// Called often, from any of the engine's threads; must not block.
using ProgressTick = std::function<void()>;

/// Ownership: the caller owns the engine; an engine owns its model and caches.
/// Thread-safety: plan() and load() come first, from one thread. After load(), tokenize(),
/// tokenize_text(), append_piece() and ends_generation() may be called from any thread; all others
/// from one thread.
/// Errors: kInvalidArgument and kNotFound are about the input or the file; kOutOfMemory means that
/// nothing was changed and less may be asked for; anything else ends the worker.
class Engine {
 public:
  virtual ~Engine() = default;

  /// What load() would take, without loading weights. May be called again with other options.
  virtual Result<Plan> plan(const LoadOptions& options) = 0;

  /// Loads the model; `progress` gets 0..1. Called once.
  virtual Result<ModelInfo> load(const LoadOptions& options,
                                 const std::function<void(float)>& progress) = 0;

  /// Renders the prompt through the model's chat template and tokenises it. Never empty.
  virtual Result<std::vector<Token>> tokenize(const Prompt& prompt) const = 0;

  /// tokenize(), and what the prompt's tools and rules mean for the answer. Thread-safety as
  /// tokenize(). Errors: kInvalidArgument where a schema cannot be enforced at all.
  virtual Result<Prepared> prepare(const Prompt& prompt) const {
    Result<std::vector<Token>> tokens = tokenize(prompt);
    if (!tokens) return std::unexpected(tokens.error());
    return Prepared{.tokens = *std::move(tokens)};
  }

  /// Appends the bytes of `token`. A piece may end inside a UTF-8 character.
  virtual void append_piece(Token token, std::string& out) const = 0;

  virtual bool ends_generation(Token token) const = 0;

  /// Starts sampling for `sequence` anew; `history` is what the sampler should know of (penalties).
  virtual Result<void> set_sampling(SequenceId sequence, const Sampling& sampling,
                                    std::span<const Token> history) = 0;

  /// The answer of `sequence` keeps `shape` from now on; `answer` is what it has said so far. Null
  /// frees it. An engine that does not sample has nothing to do.
  virtual void set_shape(SequenceId /*sequence*/, std::shared_ptr<const AnswerShape> /*shape*/,
                         std::span<const Token> /*answer*/) {}

  /// What the picture tokens of `sequence` stand for, by their positions; needed while a prompt
  /// that has pictures is processed. Null frees it.
  virtual void set_images(SequenceId /*sequence*/, std::shared_ptr<const PromptImages> /*images*/) {
  }

  /// Forgets all of `sequence` after its first `tokens` tokens and returns how many it really
  /// kept: fewer, down to 0, where the engine cannot go back so far (sliding windows).
  virtual std::uint32_t keep_prefix(SequenceId sequence, std::uint32_t tokens) = 0;

  /// Makes `to` hold the first `tokens` tokens of `from`, sharing the cells; what `to` held is
  /// forgotten. Returns how many it holds now: 0 where the engine cannot share.
  virtual std::uint32_t share_prefix(SequenceId from, SequenceId to, std::uint32_t tokens) = 0;

  /// Processes all inputs in one batch and appends one sampled token per input that samples, in
  /// the order of the inputs. REQUIRES: the sum of tokens <= step_tokens_max, or the step is one
  /// picture; no sequence twice.
  /// kOutOfMemory: no free cells; no sequence has changed. kInvalidArgument: the picture that the
  /// step is cannot be processed; no sequence has changed.
  virtual Result<void> step(std::span<const StepInput> inputs, std::vector<Token>& sampled) = 0;

  /// The tokens of a text as it stands, for embed(): without a template, with the tokens that the
  /// model wants around it. REQUIRES: it has at most prompt_bytes_max(). Thread-safety as
  /// tokenize(). Errors: kInvalidArgument where the model gives no embeddings.
  virtual Result<std::vector<Token>> tokenize_text(std::string_view /*text*/) const {
    return fail(Code::kInvalidArgument, "this model gives no embeddings");
  }

  /// One vector of length 1 for an input of 1 to `context_tokens` tokens; what was computed for
  /// others has no part in it. A model whose Capabilities say `embeddings` does this alone: it
  /// takes no steps. Errors: kInvalidArgument where the model gives no embeddings, or none for
  /// this input, which may have anything in it.
  virtual Result<std::vector<float>> embed(std::span<const Token> /*tokens*/) {
    return fail(Code::kInvalidArgument, "this model gives no embeddings");
  }

  /// Gives back what the engine's allocator keeps for later (never KV). Returns the bytes that
  /// came back, measured.
  virtual Bytes clear_cache() = 0;

  /// Gives back the KV cache and the compute buffers themselves; the next step() takes them again,
  /// and fails with kInternal where it cannot. Returns the bytes that came back, measured; 0 where
  /// an engine has no such buffers. REQUIRES: no sequence holds a token.
  virtual Bytes release_buffers() = 0;

  /// Bytes per token that a sequence holds in the KV cache, for reports.
  virtual Bytes kv_per_token() const = 0;

  /// KV cells that there are now.
  virtual std::uint32_t cells() const = 0;

  /// Of those, the cells that no sequence holds.
  virtual std::uint32_t cells_free() const = 0;

  /// The cells that any of `sequences` holds; a cell that several share counts once.
  virtual std::uint32_t cells_used(std::span<const SequenceId> sequences) const = 0;

  /// Changes the number of KV cells, between two steps, and carries over what the sequences hold:
  /// afterwards each step gives what it would have given before. What an engine could not carry
  /// over is forgotten, and keep_prefix() tells. Returns the new number: `cells`, or a little more
  /// where the engine rounds up. Copies what is used aside meanwhile (Plan::resize_copy).
  /// kInvalidArgument: `cells` is 0, or the sequences hold more. kOutOfMemory: there is no memory
  /// for so many cells or for the copy. After either nothing has changed. kInternal: what the
  /// sequences held is lost.
  virtual Result<std::uint32_t> resize(std::uint32_t cells) = 0;

  /// Upper bound of what save_state() would write now.
  virtual Bytes state_bytes(SequenceId sequence) const = 0;

  /// Replaces `out` by what the KV cache holds for `sequence`. Bytes are good for restore_state()
  /// of any engine with the same state_format() and model file, also in another process.
  /// kOutOfMemory: no memory for the bytes. After an error `out` is empty.
  virtual Result<void> save_state(SequenceId sequence, std::string& out) const = 0;

  /// Makes `sequence` hold the `tokens` tokens that `state` was saved with; what it held is
  /// forgotten. kInvalidArgument: no such state. kOutOfMemory: no free cells. After an error the
  /// sequence holds nothing, and the others are as they were.
  virtual Result<void> restore_state(SequenceId sequence, std::string_view state,
                                     std::uint32_t tokens) = 0;

  /// Whether keep_prefix() keeps whatever prefix it is asked for, so that a long state serves for
  /// each of its prefixes as well.
  virtual bool can_go_back() const = 0;

  /// Names all that the bytes of a state depend on but the model file and the tokens: the engine,
  /// its build, the types and the layout of its cache.
  virtual std::string state_format() const = 0;
};

using EngineFactory = std::function<std::unique_ptr<Engine>(const ProgressTick& tick)>;

}  // namespace pensieve::engine
