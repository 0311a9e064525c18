#include "engine/scripted_engine.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include <fmt/core.h>

#include "engine/cell_table.h"
#include "engine/piece_table.h"
#include "engine/script.h"
#include "engine/scripted_model.h"
#include "engine/taken_memory.h"
#include "engine/tool_text.h"

namespace pensieve::engine {
namespace {

// Tokens that have no text. A piece's token is its id in the table plus kFirstPiece.
constexpr Token kEnd = 0;  // Of a message, and of an answer.
constexpr Token kSystem = 1;
constexpr Token kUser = 2;
constexpr Token kAssistant = 3;
constexpr Token kToolResult = 5;
constexpr Token kPrefillEnd = 4;  // Here the text of a continued turn ends and the script begins.
constexpr Token kFirstPiece = 8;

// Bounds the vocabulary of a long test: some 150 bytes a piece, 150 MB at the very worst.
constexpr std::size_t kPiecesMax = 1'000'000;
constexpr Bytes kOomChunk = 64_MiB;
// A watchdog that allows seconds sees a live engine.
constexpr Duration kTickInterval = std::chrono::milliseconds(20);

Token marker(Role role) {
  switch (role) {
    case Role::kSystem:
      return kSystem;
    case Role::kUser:
      return kUser;
    case Role::kAssistant:
      return kAssistant;
    case Role::kTool:
      return kToolResult;
  }
  return kUser;
}

class ScriptedEngine final : public Engine {
 public:
  ScriptedEngine(ProgressTick tick, Sleep sleep)
      : tick_(std::move(tick)), sleep_(std::move(sleep)) {}

  Result<Plan> plan(const LoadOptions& options) override;
  Result<ModelInfo> load(const LoadOptions& options,
                         const std::function<void(float)>& progress) override;
  Result<std::vector<Token>> tokenize(const Prompt& prompt) const override;
  Result<Prepared> prepare(const Prompt& prompt) const override;
  Result<std::vector<Token>> tokenize_text(std::string_view text) const override;
  Result<std::vector<float>> embed(std::span<const Token> tokens) override;
  void append_piece(Token token, std::string& out) const override {
    if (token >= kFirstPiece) pieces_.append(static_cast<std::uint32_t>(token - kFirstPiece), out);
  }
  bool ends_generation(Token token) const override { return token == kEnd; }
  Result<void> set_sampling(SequenceId sequence, const Sampling& sampling,
                            std::span<const Token> history) override;
  void set_shape(SequenceId sequence, std::shared_ptr<const AnswerShape> shape,
                 std::span<const Token> answer) override;
  std::uint32_t keep_prefix(SequenceId sequence, std::uint32_t tokens) override;
  std::uint32_t share_prefix(SequenceId from, SequenceId to, std::uint32_t tokens) override;
  Result<void> step(std::span<const StepInput> inputs, std::vector<Token>& sampled) override;
  Bytes clear_cache() override;
  Bytes release_buffers() override { return Bytes(); }  // Its cells are numbers in a table.
  Bytes kv_per_token() const override { return model_.kv_per_token; }
  std::uint32_t cells() const override { return static_cast<std::uint32_t>(cells_.size()); }
  std::uint32_t cells_free() const override {
    return static_cast<std::uint32_t>(cells_.free_count());
  }
  std::uint32_t cells_used(std::span<const SequenceId> sequences) const override {
    return static_cast<std::uint32_t>(cells_.held_by(sequences));
  }
  Result<std::uint32_t> resize(std::uint32_t cells) override;
  Bytes state_bytes(SequenceId sequence) const override;
  Result<void> save_state(SequenceId sequence, std::string& out) const override;
  Result<void> restore_state(SequenceId sequence, std::string_view state,
                             std::uint32_t tokens) override;
  bool can_go_back() const override { return true; }
  std::string state_format() const override { return "scripted 1"; }

 private:
  /// The answer that a sequence is in: where its tokens begin, and what it says.
  struct Answer {
    std::size_t start = 0;
    Script script;
  };
  /// Where the text of a user's message begins.
  struct Question {
    std::size_t begin = 0;
    std::size_t answers = 0;  // That it has had before.
  };
  struct Sequence {
    std::vector<Token> tokens;
    std::optional<Answer> answer;  // Parsed when first needed.
    std::shared_ptr<const ScriptedShape> shape;
  };

  Result<Token> intern(std::string_view piece) const;
  Result<void> append_text(std::string_view text, std::vector<Token>& tokens) const;
  Answer find_answer(const std::vector<Token>& tokens) const;
  static Question find_question(const std::vector<Token>& tokens, std::size_t start);
  Result<Token> next_token(const Moment& moment);
  Result<void> perform(const Action& action);
  void take(Bytes size, std::vector<TakenMemory>& owner);
  void pass(Duration duration);
  void tick() const {
    if (tick_) tick_();
  }
  Sequence& at(SequenceId sequence) {
    PENSIEVE_CHECK(sequence < sequences_.size());
    return sequences_[sequence];
  }

  const ProgressTick tick_;
  const Sleep sleep_;
  ScriptedModel model_;
  std::uint32_t step_tokens_max_ = 0;
  std::vector<Sequence> sequences_;
  CellTable cells_;
  mutable PieceTable pieces_{kPiecesMax};
  std::vector<TakenMemory> weights_;
  std::vector<TakenMemory> grown_;   // Until clear_cache().
  std::vector<TakenMemory> leaked_;  // For ever.
};

Result<Plan> ScriptedEngine::plan(const LoadOptions& options) {
  const Result<ScriptedModel> model = read_scripted_model(options.model_path);
  if (!model) return std::unexpected(model.error());
  return plan_scripted(*model, options);
}

Result<ModelInfo> ScriptedEngine::load(const LoadOptions& options,
                                       const std::function<void(float)>& progress) {
  PENSIEVE_CHECK(sequences_.empty() && options.sequences_max > 0 && options.step_tokens_max > 0);
  const Result<Plan> planned = plan(options);
  if (!planned) return std::unexpected(planned.error());
  const Result<ScriptedModel> model = read_scripted_model(options.model_path);
  if (!model) return std::unexpected(model.error());

  constexpr int kParts = 10;  // Of the load, so that its progress can be seen.
  progress(0.0F);
  for (int part = 1; part <= kParts; ++part) {
    pass(model->load_time / kParts);
    const Bytes size(model->weights.count() / kParts);
    std::optional<TakenMemory> memory = TakenMemory::try_take(size);
    if (!memory) {
      weights_.clear();
      return fail(Code::kOutOfMemory,
                  fmt::format("{}: no memory for {} MiB of weights", options.model_path,
                              model->weights.count() >> 20));
    }
    weights_.push_back(*std::move(memory));
    progress(static_cast<float>(part) / kParts);
  }
  model_ = *model;
  step_tokens_max_ = options.step_tokens_max;
  cells_ = CellTable(planned->cells, options.sequences_max);
  sequences_.resize(options.sequences_max);
  // A script says what it says, whatever the schema.
  return ModelInfo{
      "scripted",
      planned->context_tokens,
      planned->context_train_tokens,
      planned->cells,
      {.thinking = model_.embedding_size == 0, .embeddings = model_.embedding_size > 0}};
}

Result<Token> ScriptedEngine::intern(std::string_view piece) const {
  const std::optional<std::uint32_t> id = pieces_.try_intern(piece);
  if (!id) {
    return fail(Code::kOutOfMemory,
                fmt::format("the scripted engine's vocabulary of {} pieces is full", kPiecesMax));
  }
  return static_cast<Token>(*id) + kFirstPiece;
}

Result<void> ScriptedEngine::append_text(std::string_view text, std::vector<Token>& tokens) const {
  for (std::string_view piece : split_pieces(text)) {
    const Result<Token> token = intern(piece);
    if (!token) return std::unexpected(token.error());
    tokens.push_back(*token);
  }
  return {};
}

Result<std::vector<Token>> ScriptedEngine::tokenize(const Prompt& prompt) const {
  if (prompt.messages.empty()) {
    return fail(Code::kInvalidArgument, "a prompt needs at least one message");
  }
  if (prompt.continues_last && prompt.messages.back().role != Role::kAssistant) {
    return fail(Code::kInvalidArgument, "only a turn of the assistant can be continued");
  }
  std::vector<Token> tokens;
  for (const Message& message : prompt.messages) {
    tokens.push_back(marker(message.role));
    std::string text = thoughts_before(message.thinking, message.text);
    for (const ToolCall& call : message.calls) text += call_text(call);
    if (Result<void> appended = append_text(text, tokens); !appended) {
      return std::unexpected(appended.error());
    }
    tokens.push_back(kEnd);
  }
  if (prompt.continues_last) {
    tokens.back() = kPrefillEnd;
  } else {
    tokens.push_back(kAssistant);
  }
  return tokens;
}

Result<std::vector<Token>> ScriptedEngine::tokenize_text(std::string_view text) const {
  if (model_.embedding_size == 0) return Engine::tokenize_text(text);
  std::vector<Token> tokens;
  if (Result<void> appended = append_text(text, tokens); !appended) {
    return std::unexpected(appended.error());
  }
  return tokens;
}

/// The text may be a script: what it does before its first word happens.
Result<std::vector<float>> ScriptedEngine::embed(std::span<const Token> tokens) {
  if (model_.embedding_size == 0) return Engine::embed(tokens);
  std::string text;
  for (const Token token : tokens) {
    if (token < kFirstPiece || token >= kFirstPiece + static_cast<Token>(pieces_.size())) {
      return fail(Code::kInvalidArgument, fmt::format("token {} has no text", token));
    }
    append_piece(token, text);
  }
  const Moment moment = Script::parse(text, 0).at(0);
  pass(std::max<Duration>(moment.delay,
                          model_.prefill_per_token * static_cast<std::int64_t>(tokens.size())));
  if (const Result<Token> said = next_token(moment); !said) return std::unexpected(said.error());
  return scripted_embedding(tokens, model_.embedding_size);
}

Result<Prepared> ScriptedEngine::prepare(const Prompt& prompt) const {
  if (model_.embedding_size > 0) {
    return fail(Code::kInvalidArgument,
                "this model gives embeddings (POST /v1/embeddings) and no answers");
  }
  Result<std::vector<Token>> tokens = tokenize(prompt);
  if (!tokens) return std::unexpected(tokens.error());
  if (model_.prepare_time > Duration::zero()) sleep_(model_.prepare_time);
  return Prepared{.tokens = *std::move(tokens),
                  .shape = std::make_shared<ScriptedShape>(prompt.rules.thinking_tokens_max),
                  .thinking = ThinkingForm{std::string(kThinkingBegin), std::string(kThinkingEnd)}};
}

void ScriptedEngine::set_shape(SequenceId sequence, std::shared_ptr<const AnswerShape> shape,
                               std::span<const Token> /*answer*/) {
  at(sequence).shape = std::dynamic_pointer_cast<const ScriptedShape>(std::move(shape));
  at(sequence).answer.reset();
}

Result<void> ScriptedEngine::set_sampling(SequenceId sequence, const Sampling& /*sampling*/,
                                          std::span<const Token> /*history*/) {
  at(sequence);
  return {};
}

std::uint32_t ScriptedEngine::keep_prefix(SequenceId sequence, std::uint32_t tokens) {
  Sequence& kept = at(sequence);
  if (tokens < kept.tokens.size()) kept.tokens.resize(tokens);
  cells_.keep(sequence, kept.tokens.size());
  if (kept.answer && kept.answer->start > kept.tokens.size()) kept.answer.reset();
  return static_cast<std::uint32_t>(kept.tokens.size());
}

std::uint32_t ScriptedEngine::share_prefix(SequenceId from, SequenceId to, std::uint32_t tokens) {
  if (from == to) return keep_prefix(to, tokens);
  const Sequence& source = at(from);
  Sequence& target = at(to);
  const std::size_t count = std::min<std::size_t>(tokens, source.tokens.size());
  target.tokens.assign(source.tokens.begin(),
                       source.tokens.begin() + static_cast<std::ptrdiff_t>(count));
  target.answer.reset();
  cells_.share(from, to, count);
  return static_cast<std::uint32_t>(count);
}

ScriptedEngine::Answer ScriptedEngine::find_answer(const std::vector<Token>& tokens) const {
  const auto starts_answer = [](Token t) { return t == kAssistant || t == kPrefillEnd; };
  const auto found = std::find_if(tokens.rbegin(), tokens.rend(), starts_answer);
  const auto start = static_cast<std::size_t>(tokens.rend() - found);
  const Question question = find_question(tokens, start);
  std::string text;  // Empty where there is no turn of the user.
  for (std::size_t i = question.begin; i < start && tokens[i] != kEnd; ++i) {
    append_piece(tokens[i], text);
  }
  return Answer{start, Script::parse(text, question.answers)};
}

/// The user's message that the answer at `start` belongs to, and the answers that it has had: what
/// the user's side says together with the results of calls is no new question.
ScriptedEngine::Question ScriptedEngine::find_question(const std::vector<Token>& tokens,
                                                       std::size_t start) {
  Question question{.begin = start};
  bool has_result = false;
  bool is_prefill = start > 0 && tokens[start - 1] == kPrefillEnd;
  std::size_t answers = 0;
  for (std::size_t i = start; i-- > 0;) {
    if (tokens[i] == kToolResult) has_result = true;
    if (tokens[i] == kUser && question.begin == start) question = {i + 1, answers};
    if (tokens[i] != kAssistant || i + 1 == start) continue;
    if (std::exchange(is_prefill, false)) continue;  // The turn that is continued.
    if (question.begin != start && !has_result) return question;
    question = {.begin = start};
    has_result = false;
    ++answers;
  }
  return question;
}

Result<void> ScriptedEngine::step(std::span<const StepInput> inputs, std::vector<Token>& sampled) {
  std::size_t tokens = 0;
  std::size_t prefilled = 0;  // A lone token that samples is decoding; all else is prefill.
  std::vector<bool> seen(sequences_.size());
  for (const StepInput& input : inputs) {
    PENSIEVE_CHECK(input.sequence < seen.size() && !seen[input.sequence] && !input.tokens.empty());
    seen[input.sequence] = true;
    tokens += input.tokens.size();
    if (!input.samples || input.tokens.size() > 1) prefilled += input.tokens.size();
  }
  PENSIEVE_CHECK(tokens <= step_tokens_max_);
  if (tokens > cells_.free_count()) {
    return fail(Code::kOutOfMemory,
                fmt::format("{} tokens need cells, {} are free", tokens, cells_.free_count()));
  }

  Duration duration = model_.prefill_per_token * static_cast<std::int64_t>(prefilled);
  if (tokens > prefilled) duration += model_.token_time;
  std::vector<Moment> moments;  // One per input that samples.
  for (const StepInput& input : inputs) {
    Sequence& sequence = at(input.sequence);
    sequence.tokens.insert(sequence.tokens.end(), input.tokens.begin(), input.tokens.end());
    cells_.extend(input.sequence, sequence.tokens.size());
    if (std::any_of(input.tokens.begin(), input.tokens.end(),
                    [](Token token) { return token < kFirstPiece; })) {
      sequence.answer.reset();
    }
    if (!input.samples) continue;
    if (!sequence.answer) {
      sequence.answer = find_answer(sequence.tokens);
      if (sequence.shape) sequence.answer->script.limit_thinking(sequence.shape->words_max);
    }
    const std::uint64_t position = sequence.tokens.size() - sequence.answer->start;
    moments.push_back(sequence.answer->script.at(position));
    duration = std::max<Duration>(duration, moments.back().delay);
  }
  pass(duration);
  for (const Moment& moment : moments) {
    const Result<Token> token = next_token(moment);
    if (!token) return std::unexpected(token.error());
    sampled.push_back(*token);
  }
  return {};
}

Result<Token> ScriptedEngine::next_token(const Moment& moment) {
  for (const Action& action : moment.actions) {
    if (!action.once_path.empty()) {
      const Result<bool> created = create_once(action.once_path);
      if (!created) return std::unexpected(created.error());
      if (!*created) continue;
    }
    if (Result<void> done = perform(action); !done) return std::unexpected(done.error());
  }
  if (!moment.piece) return kEnd;
  const std::string outcome = moment.attempt ? pensieve::engine::perform(*moment.attempt) : "";
  const Result<Token> token = intern(*moment.piece + outcome);
  // Not kOutOfMemory: that would promise that nothing has changed.
  if (!token) return fail(Code::kInternal, token.error().message);
  return token;
}

Result<void> ScriptedEngine::perform(const Action& action) {
  const Bytes size(std::uint64_t{action.amount} << 20);
  switch (action.deed) {
    case Deed::kGrow:
      take(size, grown_);
      return {};
    case Deed::kLeak:
      take(size, leaked_);
      return {};
    case Deed::kAbort:
      std::abort();
    case Deed::kSegv:
      std::signal(SIGSEGV, SIG_DFL);  // A sanitizer's handler would turn it into an exit code.
      std::raise(SIGSEGV);
      return {};
    case Deed::kExit:
      std::_Exit(static_cast<int>(action.amount & 0xFF));
    case Deed::kHang:
      while (true) sleep_(std::chrono::hours(1));
    case Deed::kSlow:
      pass(std::chrono::milliseconds(action.amount));
      return {};
    case Deed::kOom:
      while (true) {
        take(kOomChunk, leaked_);
        tick();
      }
    case Deed::kBadAlloc:
      throw std::bad_alloc();
    case Deed::kFail:
      break;
  }
  return fail(Code::kInternal, "the script said fail");
}

/// As an allocation in a real engine does, this throws std::bad_alloc where there is no memory.
void ScriptedEngine::take(Bytes size, std::vector<TakenMemory>& owner) {
  std::optional<TakenMemory> memory = TakenMemory::try_take(size);
  if (!memory) throw std::bad_alloc();
  owner.push_back(*std::move(memory));
}

/// Lets `duration` pass, with progress ticks.
void ScriptedEngine::pass(Duration duration) {
  tick();
  while (duration > Duration::zero()) {
    const Duration slice = std::min(duration, kTickInterval);
    sleep_(slice);
    tick();
    duration -= slice;
  }
}

Result<std::uint32_t> ScriptedEngine::resize(std::uint32_t cells) {
  const std::size_t used = cells_.size() - cells_.free_count();
  if (cells == 0 || used > cells) {
    return fail(Code::kInvalidArgument, fmt::format("{} cells for {} that are used", cells, used));
  }
  cells_.resize(cells);
  return cells;
}

Bytes ScriptedEngine::state_bytes(SequenceId sequence) const {
  return Bytes(sequences_.at(sequence).tokens.size() * sizeof(Token));
}

Result<void> ScriptedEngine::save_state(SequenceId sequence, std::string& out) const {
  const std::vector<Token>& tokens = sequences_.at(sequence).tokens;
  out.assign(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(Token));
  return {};
}

Result<void> ScriptedEngine::restore_state(SequenceId sequence, std::string_view state,
                                           std::uint32_t tokens) {
  keep_prefix(sequence, 0);
  if (state.size() != tokens * sizeof(Token)) {
    return fail(Code::kInvalidArgument, "a state of another number of tokens");
  }
  std::vector<Token> held(tokens);
  std::memcpy(held.data(), state.data(), state.size());
  const auto end = kFirstPiece + static_cast<Token>(pieces_.size());
  if (std::any_of(held.begin(), held.end(), [&](Token t) { return t < 0 || t >= end; })) {
    return fail(Code::kInvalidArgument, "a state with tokens that are none");
  }
  if (tokens > cells_.free_count()) {
    return fail(Code::kOutOfMemory,
                fmt::format("{} tokens need cells, {} are free", tokens, cells_.free_count()));
  }
  cells_.extend(sequence, tokens);
  at(sequence).tokens = std::move(held);
  return {};
}

Bytes ScriptedEngine::clear_cache() {
  Bytes freed;
  for (const TakenMemory& memory : grown_) freed = Bytes(freed.count() + memory.size().count());
  grown_.clear();
  return freed;
}

}  // namespace

void real_sleep(Duration duration) {
  std::this_thread::sleep_for(duration);  // pensieve-allow: sleep_for
}

std::unique_ptr<Engine> make_scripted_engine(ProgressTick tick, Sleep sleep) {
  return std::make_unique<ScriptedEngine>(std::move(tick), std::move(sleep));
}

}  // namespace pensieve::engine
