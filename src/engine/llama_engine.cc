#include "engine/llama_engine.h"

#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <array>
#include <exception>
#include <fstream>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <ggml-cpu.h>
#include <llama-ext.h>
#include <llama.h>

#include "base/log.h"
#include "engine/cell_table.h"
#include "engine/core_times.h"
#include "engine/llama_batch.h"
#include "engine/llama_chat.h"
#include "engine/llama_native.h"
#include "engine/llama_plan.h"
#include "engine/llama_sampler.h"
#include "engine/llama_state.h"
#include "engine/thread_count.h"

namespace pensieve::engine {
namespace {

/// ggml's own default. Measured on two cores against 0: 0.97 instead of 0.87 of llama-server.
constexpr std::uint32_t kPollWhenFree = 50;

/// llama.cpp rounds the cells of a context up to a multiple of this.
constexpr std::uint32_t kCellsMultiple = 256;
/// llama.cpp counts cells and positions in 32 bits with a sign.
constexpr std::uint32_t kCellsMost = 1U << 30;

/// Memory of this process that is resident now; empty where the system does not say.
std::optional<Bytes> resident() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t pages_total = 0;
  std::uint64_t pages_resident = 0;
  if (!(file >> pages_total >> pages_resident)) return std::nullopt;
  return Bytes(pages_resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
}

struct Sequence {
  std::uint32_t tokens = 0;  // Held in the cache, at the positions from 0.
  std::optional<LlamaSampler> sampler;
};

class LlamaEngine final : public Engine {
 public:
  explicit LlamaEngine(ProgressTick tick) : tick_(std::move(tick)) { start_llama(); }

  Result<Plan> plan(const LoadOptions& options) override { return plan_llama(options); }
  Result<ModelInfo> load(const LoadOptions& options,
                         const std::function<void(float)>& progress) override;
  Result<std::vector<Token>> tokenize(const Prompt& prompt) const override {
    return chat_->tokenize(prompt);
  }
  Result<Prepared> prepare(const Prompt& prompt) const override {
    return chat_->prepare(prompt, options_.context_tokens);
  }
  void append_piece(Token token, std::string& out) const override;
  bool ends_generation(Token token) const override { return llama_vocab_is_eog(vocab_, token); }
  Result<void> set_sampling(SequenceId sequence, const Sampling& sampling,
                            std::span<const Token> history) override;
  void set_shape(SequenceId sequence, std::shared_ptr<const AnswerShape> shape,
                 std::span<const Token> answer) override;
  std::uint32_t keep_prefix(SequenceId sequence, std::uint32_t tokens) override;
  std::uint32_t share_prefix(SequenceId from, SequenceId to, std::uint32_t tokens) override;
  Result<void> step(std::span<const StepInput> inputs, std::vector<Token>& sampled) override;
  Bytes clear_cache() override;
  Bytes release_buffers() override;
  Bytes kv_per_token() const override { return kv_per_token_; }
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
  bool can_go_back() const override {
    return llama_model_n_swa(model_.get()) <= 0 && !llama_model_is_recurrent(model_.get()) &&
           !llama_model_is_hybrid(model_.get());
  }
  std::string state_format() const override;

 private:
  Result<void> open_model(const LoadOptions& options, const std::function<void(float)>& progress);
  Result<void> open_context();
  Result<void> reopen(std::uint32_t cells, const std::string& copy);
  Result<void> start_threads(LlamaThreads& threads, std::uint32_t poll);
  void use_threads(std::uint32_t threads);
  void forget(SequenceId sequence);
  Result<void> check_room(std::size_t tokens) const;
  void follow_cores(ReadingTime time);
  void tick() const {
    if (tick_) tick_();
  }
  Sequence& at(SequenceId sequence) {
    PENSIEVE_CHECK(sequence < sequences_.size());
    return sequences_[sequence];
  }
  llama_memory_t memory() const { return llama_get_memory(context_.get()); }

  const ProgressTick tick_;
  const Clock& clock_ = steady_clock();
  LoadOptions options_;  // As loaded.
  ThreadCount thread_count_{1};
  // Destroyed from the last to the first: the context uses the threads and the model.
  LlamaModel model_;
  LlamaThreads all_threads_;
  LlamaThreads few_threads_;
  LlamaContext context_;
  std::unique_ptr<LlamaChat> chat_;
  std::unique_ptr<LlamaBatch> batch_;
  const llama_vocab* vocab_ = nullptr;
  std::size_t vocabulary_ = 0;
  SamplingDefaults defaults_;
  std::vector<Sequence> sequences_;
  CellTable cells_;  // llama.cpp does not tell how many cells are used.
  std::vector<llama_token_data> scratch_;
  Bytes kv_per_token_;
};

Result<ModelInfo> LlamaEngine::load(const LoadOptions& options,
                                    const std::function<void(float)>& progress) {
  PENSIEVE_CHECK(model_ == nullptr);
  const Result<Plan> planned = plan_llama(options);
  if (!planned) return std::unexpected(planned.error());
  LoadOptions exact = options;
  exact.context_tokens = planned->context_tokens;
  exact.cells = planned->cells;
  try {
    if (Result<void> opened = open_model(exact, progress); !opened) {
      return std::unexpected(opened.error());
    }
    options_ = exact;
    thread_count_ = ThreadCount(exact.threads);
    if (Result<void> opened = open_context(); !opened) {
      model_.reset();
      return std::unexpected(opened.error());
    }
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInternal,
                fmt::format("loading {} failed: {}", options.model_path, error.what()));
  }
  Result<std::unique_ptr<LlamaChat>> chat = LlamaChat::create(model_.get());
  if (!chat) return std::unexpected(chat.error());
  chat_ = *std::move(chat);

  batch_ = std::make_unique<LlamaBatch>(exact.step_tokens_max);
  defaults_ = SamplingDefaults::of(model_.get());
  sequences_.resize(exact.sequences_max);
  PENSIEVE_CHECK(llama_n_ctx(context_.get()) == exact.cells);
  cells_ = CellTable(exact.cells, exact.sequences_max);
  kv_per_token_ = Bytes(planned->estimate.kv.count() / exact.cells);
  std::array<char, 256> description{};
  llama_model_desc(model_.get(), description.data(), description.size());
  return ModelInfo{description.data(),
                   exact.context_tokens,
                   planned->context_train_tokens,
                   exact.cells,
                   {.structured_outputs = true, .thinking = chat_->can_think()}};
}

Result<void> LlamaEngine::open_model(const LoadOptions& options,
                                     const std::function<void(float)>& progress) {
  struct Watch {
    const LlamaEngine& engine;
    const std::function<void(float)>& progress;
  } watch{*this, progress};
  llama_model_params params = model_params();
  params.progress_callback = [](float share, void* data) {
    const Watch& seen = *static_cast<Watch*>(data);
    seen.engine.tick();
    if (seen.progress) seen.progress(share);
    return true;
  };
  params.progress_callback_user_data = &watch;
  model_.reset(llama_model_load_from_file(options.model_path.c_str(), params));
  if (!model_) {
    return fail(Code::kInternal,
                fmt::format("loading {} failed: {}", options.model_path, last_llama_error()));
  }
  vocab_ = llama_model_get_vocab(model_.get());
  vocabulary_ = static_cast<std::size_t>(llama_vocab_n_tokens(vocab_));
  return {};
}

Result<void> LlamaEngine::open_context() {
  llama_context_params params = context_params(options_);
  params.abort_callback = [](void* data) {
    static_cast<LlamaEngine*>(data)->tick();
    return false;
  };
  params.abort_callback_data = this;
  context_.reset(llama_init_from_model(model_.get(), params));
  if (!context_) {
    // The plan made the same context without buffers, so it is the buffers that are missing.
    return fail(Code::kOutOfMemory, fmt::format("no memory for a KV cache of {} cells: {}",
                                                options_.cells, last_llama_error()));
  }
  if (Result<void> started = start_threads(all_threads_, kPollWhenFree); !started) return started;
  return start_threads(few_threads_, 0);
}

/// `poll` is ggml's, 0 to 100: how long a thread spins for the next step before it sleeps.
Result<void> LlamaEngine::start_threads(LlamaThreads& threads, std::uint32_t poll) {
  if (threads) return {};
  ggml_threadpool_params params =
      ggml_threadpool_params_default(static_cast<int>(options_.threads));
  params.poll = poll;
  threads.reset(ggml_threadpool_new(&params));
  if (!threads) return fail(Code::kInternal, "the threads of the llama engine did not start");
  return {};
}

/// With all cores free the threads spin between two steps: waking them costs 2 % of a token. When
/// others want a core, that spinning would be what keeps it from them: another pool, whose threads
/// sleep at once, computes with the threads that are left.
void LlamaEngine::use_threads(std::uint32_t threads) {
  ggml_threadpool* const pool =
      threads == options_.threads ? all_threads_.get() : few_threads_.get();
  llama_attach_threadpool(context_.get(), pool, pool);
  const auto count = static_cast<std::int32_t>(threads);
  llama_set_n_threads(context_.get(), count, count);
}

void LlamaEngine::append_piece(Token token, std::string& out) const {
  pensieve::engine::append_piece(vocab_, token, chat_->shows(token), out);
}

Result<void> LlamaEngine::set_sampling(SequenceId sequence, const Sampling& sampling,
                                       std::span<const Token> /*history*/) {
  Result<LlamaSampler> sampler = LlamaSampler::create(sampling, defaults_);
  if (!sampler) return std::unexpected(sampler.error());
  at(sequence).sampler = *std::move(sampler);
  return {};
}

void LlamaEngine::forget(SequenceId sequence) {
  if (!context_) return;  // Its buffers were released, and no sequence holds anything.
  llama_memory_seq_rm(memory(), static_cast<llama_seq_id>(sequence), -1, -1);
  at(sequence).tokens = 0;
  cells_.keep(sequence, 0);
}

std::uint32_t LlamaEngine::keep_prefix(SequenceId sequence, std::uint32_t tokens) {
  Sequence& kept = at(sequence);
  if (tokens >= kept.tokens) return kept.tokens;
  if (tokens > 0 && can_go_on_from(context_.get(), sequence, tokens) &&
      llama_memory_seq_rm(memory(), static_cast<llama_seq_id>(sequence),
                          static_cast<llama_pos>(tokens), -1)) {
    kept.tokens = tokens;
    cells_.keep(sequence, tokens);
  } else {
    forget(sequence);  // A recurrent state cannot be taken back either.
  }
  return kept.tokens;
}

std::uint32_t LlamaEngine::share_prefix(SequenceId from, SequenceId to, std::uint32_t tokens) {
  if (from == to) return keep_prefix(to, tokens);
  tokens = std::min(tokens, at(from).tokens);
  forget(to);
  // Cells of a sliding window that two sequences hold are not taken back when both have moved on,
  // so the small cache of those layers would fill up and steps fail though there is room.
  if (tokens == 0 || !can_go_back()) return 0;
  llama_memory_seq_cp(memory(), static_cast<llama_seq_id>(from), static_cast<llama_seq_id>(to), 0,
                      static_cast<llama_pos>(tokens));
  at(to).tokens = tokens;
  cells_.share(from, to, tokens);
  return tokens;
}

void LlamaEngine::set_shape(SequenceId sequence, std::shared_ptr<const AnswerShape> shape,
                            std::span<const Token> answer) {
  std::optional<LlamaSampler>& sampler = at(sequence).sampler;
  if (!sampler) return;
  sampler->keep(follow(std::move(shape), vocab_), answer);
}

void LlamaEngine::follow_cores(ReadingTime time) {
  if (!thread_count_.wants_reading(time, clock_.now())) return;
  thread_count_.observe(time, read_core_times(clock_));
}

Result<void> LlamaEngine::check_room(std::size_t tokens) const {
  const std::size_t free = cells_.free_count();
  // A batch larger than n_batch makes llama.cpp abort; that is below step_tokens_max only where
  // the whole cache is.
  if (tokens <= free && tokens <= llama_n_batch(context_.get())) return {};
  return fail(Code::kOutOfMemory, fmt::format("no cells for a step of {} tokens: {} of {} are free",
                                              tokens, free, cells_.size()));
}

Result<void> LlamaEngine::step(std::span<const StepInput> inputs, std::vector<Token>& sampled) {
  if (!context_) {
    if (Result<void> opened = open_context(); !opened) {
      return fail(Code::kInternal, opened.error().message);
    }
  }
  batch_->clear();
  std::size_t tokens = 0;
  for (const StepInput& input : inputs) tokens += input.tokens.size();
  if (Result<void> room = check_room(tokens); !room) return room;
  for (const StepInput& input : inputs) {
    PENSIEVE_CHECK(!input.tokens.empty());
    auto position = static_cast<llama_pos>(at(input.sequence).tokens);
    for (std::size_t i = 0; i < input.tokens.size(); ++i) {
      const bool has_output = input.samples && i + 1 == input.tokens.size();
      batch_->add(input.tokens[i], position++, input.sequence, has_output);
    }
  }

  tick();
  follow_cores(ReadingTime::kBeforeStep);
  use_threads(thread_count_.threads(batch_->size() > inputs.size() ? StepKind::kPrompt
                                                                   : StepKind::kDecode));
  int status = 0;
  std::string thrown;
  try {
    status = llama_decode(context_.get(), batch_->view());
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    status = -1;
    thrown = error.what();
  }
  follow_cores(ReadingTime::kAfterStep);
  if (status == 1) {
    return fail(Code::kOutOfMemory, fmt::format("no free cells for {} tokens", batch_->size()));
  }
  if (status != 0) {
    for (const StepInput& input : inputs) {
      llama_memory_seq_rm(memory(), static_cast<llama_seq_id>(input.sequence),
                          static_cast<llama_pos>(at(input.sequence).tokens), -1);
    }
    return fail(Code::kInternal, fmt::format("llama_decode: {} {}", status,
                                             thrown.empty() ? last_llama_error() : thrown));
  }

  std::int32_t last = -1;  // Index in the batch of an input's last token.
  for (const StepInput& input : inputs) {
    Sequence& sequence = at(input.sequence);
    sequence.tokens += static_cast<std::uint32_t>(input.tokens.size());
    cells_.extend(input.sequence, sequence.tokens);
    last += static_cast<std::int32_t>(input.tokens.size());
    if (!input.samples) continue;
    if (!sequence.sampler) {
      if (Result<void> set = set_sampling(input.sequence, {}, {}); !set) return set;
    }
    const float* const logits = llama_get_logits_ith(context_.get(), last);
    if (logits == nullptr) return fail(Code::kInternal, "llama.cpp gave no logits");
    sampled.push_back(sequence.sampler->sample({logits, vocabulary_}, scratch_));
  }
  return {};
}

/// A new context of `cells` cells in place of the old one, which goes first: both together would
/// be what the machine has no room for. After an error there is no context.
Result<void> LlamaEngine::reopen(std::uint32_t cells, const std::string& copy) {
  context_.reset();
  options_.cells = cells;
  tick();
  if (Result<void> opened = open_context(); !opened) return opened;
  tick();
  Result<void> restored = restore_all(context_.get(), copy);
  if (!restored) context_.reset();
  tick();
  return restored;
}

Result<std::uint32_t> LlamaEngine::resize(std::uint32_t cells) {
  const std::size_t used = cells_.size() - cells_.free_count();
  if (cells == 0 || used > cells || cells > kCellsMost) {
    return fail(Code::kInvalidArgument,
                fmt::format("no KV cache of {} cells: {} are used", cells, used));
  }
  const std::uint32_t before = options_.cells;
  const std::uint32_t rounded = (cells + kCellsMultiple - 1) / kCellsMultiple * kCellsMultiple;
  if (rounded == before) return before;
  if (!context_) {  // The next step makes it, in its new size.
    options_.cells = rounded;
    cells_.resize(rounded);
    return rounded;
  }
  std::string copy;
  if (used > 0) {
    if (Result<void> saved = save_all(context_.get(), copy); !saved) {
      return std::unexpected(saved.error());
    }
  }
  if (const Result<void> opened = reopen(rounded, copy); !opened) {
    if (const Result<void> back = reopen(before, copy); !back) {
      return fail(Code::kInternal, fmt::format("{}; and the old cache did not come back: {}",
                                               opened.error().message, back.error().message));
    }
    return fail(Code::kOutOfMemory, opened.error().message);
  }
  PENSIEVE_CHECK(llama_n_ctx(context_.get()) == rounded);
  copy = std::string();  // Before the trim below.
  cells_.resize(rounded);
  // The window of a sliding layer that did not come along would be computed without, wrongly.
  for (SequenceId sequence = 0; sequence < sequences_.size(); ++sequence) {
    if (sequences_[sequence].tokens > 0 &&
        !holds(context_.get(), sequence, sequences_[sequence].tokens)) {
      log::warning("sequence {} did not outlive a change of the KV cache", sequence);
      forget(sequence);
    }
  }
  clear_cache();
  return rounded;
}

Bytes LlamaEngine::state_bytes(SequenceId sequence) const {
  if (sequences_.at(sequence).tokens == 0) return Bytes();
  return sequence_state_bytes(context_.get(), sequence);
}

Result<void> LlamaEngine::save_state(SequenceId sequence, std::string& out) const {
  out.clear();
  if (sequences_.at(sequence).tokens == 0) return {};
  return save_sequence(context_.get(), sequence, out);
}

Result<void> LlamaEngine::restore_state(SequenceId sequence, std::string_view state,
                                        std::uint32_t tokens) {
  forget(sequence);
  if (tokens > cells_.free_count()) {
    return fail(Code::kOutOfMemory,
                fmt::format("{} tokens need cells, {} are free", tokens, cells_.free_count()));
  }
  if (!context_) {
    if (Result<void> opened = open_context(); !opened) return opened;
  }
  if (Result<void> restored = restore_sequence(context_.get(), sequence, state, tokens);
      !restored) {
    forget(sequence);
    return restored;
  }
  cells_.extend(sequence, tokens);
  at(sequence).tokens = tokens;
  return {};
}

std::string LlamaEngine::state_format() const {
  const llama_context_params params = context_params(options_);
  return fmt::format("llama {} {} K {} V {}", ggml_version(), ggml_commit(),
                     ggml_type_name(params.type_k), ggml_type_name(params.type_v));
}

Bytes LlamaEngine::clear_cache() {
#ifdef __GLIBC__
  const std::optional<Bytes> before = resident();
  malloc_trim(0);
  const std::optional<Bytes> after = resident();
  if (before && after) return saturating_sub(*before, *after);
#endif
  return Bytes();
}

Bytes LlamaEngine::release_buffers() {
  for (const Sequence& sequence : sequences_) PENSIEVE_CHECK(sequence.tokens == 0);
  const std::optional<Bytes> before = resident();
  context_.reset();
  clear_cache();
  const std::optional<Bytes> after = resident();
  return before && after ? saturating_sub(*before, *after) : Bytes();
}

}  // namespace

std::unique_ptr<Engine> make_llama_engine(const ProgressTick& tick) {
  return std::make_unique<LlamaEngine>(tick);
}

}  // namespace pensieve::engine
