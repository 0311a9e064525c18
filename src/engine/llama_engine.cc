#include "engine/llama_engine.h"

#include <algorithm>
#include <array>
#include <exception>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <ggml-cpu.h>
#include <llama.h>

#include "engine/core_times.h"
#include "engine/llama_engine_impl.h"
#include "engine/llama_native.h"

namespace pensieve::engine {
namespace {

/// ggml's own default. Measured on two cores against 0: 0.97 instead of 0.87 of llama-server.
constexpr std::uint32_t kPollWhenFree = 50;

}  // namespace

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
    const Result<std::optional<EmbeddingKind>> kind = embedding_kind(model_.get());
    if (!kind) return std::unexpected(kind.error());
    embedding_ = *kind;
    if (embedding_) exact = embedding_options(exact, *embedding_, planned->context_train_tokens);
    options_ = exact;
    options_.cells = exact.cells = planned->cells;
    thread_count_ = ThreadCount(exact.threads);
    Result<void> opened = open_projector();
    if (opened) opened = open_context();
    if (!opened) {
      vision_.reset();
      model_.reset();
      return std::unexpected(opened.error());
    }
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInternal,
                fmt::format("loading {} failed: {}", options.model_path, error.what()));
  }
  if (!embedding_) {
    Result<std::unique_ptr<LlamaChat>> chat = LlamaChat::create(model_.get(), "", vision_.get());
    if (!chat) return std::unexpected(chat.error());
    chat_ = *std::move(chat);
  }

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
                   {.structured_outputs = chat_ != nullptr,
                    .thinking = chat_ != nullptr && chat_->can_think(),
                    .image_input = vision_ != nullptr,
                    .embeddings = embedding_.has_value()}};
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

Result<void> LlamaEngine::open_projector() {
  if (options_.projector_path.empty() || embedding_) return {};
  Result<std::unique_ptr<LlamaVision>> vision =
      LlamaVision::load(model_.get(),
                        {.path = options_.projector_path,
                         .threads = options_.threads,
                         .step_tokens_max = options_.step_tokens_max},
                        [this] { tick(); });
  if (!vision) return std::unexpected(vision.error());
  vision_ = *std::move(vision);
  return {};
}

Result<void> LlamaEngine::open_context() {
  llama_context_params params = context_params(options_, embedding_);
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
  pensieve::engine::append_piece(vocab_, token, chat_ != nullptr && chat_->shows(token), out);
}

Result<void> LlamaEngine::set_sampling(SequenceId sequence, const Sampling& sampling,
                                       std::span<const Token> /*history*/) {
  Result<LlamaSampler> sampler = LlamaSampler::create(sampling, defaults_);
  if (!sampler) return std::unexpected(sampler.error());
  at(sequence).sampler = *std::move(sampler);
  return {};
}

void LlamaEngine::set_shape(SequenceId sequence, std::shared_ptr<const AnswerShape> shape,
                            std::span<const Token> answer) {
  std::optional<LlamaSampler>& sampler = at(sequence).sampler;
  if (!sampler) return;
  sampler->keep(follow(std::move(shape), vocab_), answer);
}

void LlamaEngine::set_images(SequenceId sequence, std::shared_ptr<const PromptImages> images) {
  std::shared_ptr<const LlamaImages>& own = at(sequence).images;
  if (own != nullptr && images == nullptr) vision_->forget();
  own = std::dynamic_pointer_cast<const LlamaImages>(std::move(images));
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
  PENSIEVE_CHECK(!embedding_);  // prepare() has refused.
  if (!context_) {
    if (Result<void> opened = open_context(); !opened) {
      return fail(Code::kInternal, opened.error().message);
    }
  }
  if (inputs.size() == 1 && starts_image(inputs[0].tokens[0])) {
    return step_image(inputs[0], sampled);
  }
  batch_->clear();
  std::size_t tokens = 0;
  for (const StepInput& input : inputs) tokens += input.tokens.size();
  if (Result<void> room = check_room(tokens); !room) return room;
  for (const StepInput& input : inputs) {
    PENSIEVE_CHECK(!input.tokens.empty());
    auto position = static_cast<llama_pos>(at(input.sequence).tokens);
    for (std::size_t i = 0; i < input.tokens.size(); ++i) {
      PENSIEVE_CHECK(!is_image(input.tokens[i]));
      const bool has_output = input.samples && i + 1 == input.tokens.size();
      batch_->add(input.tokens[i], position++, input.sequence, has_output);
    }
  }
  follow_cores(ReadingTime::kBeforeStep);
  use_threads(thread_count_.threads(batch_->size() > inputs.size() ? StepKind::kPrompt
                                                                   : StepKind::kDecode));
  Result<void> decoded = decode(batch_->view(), inputs);
  follow_cores(ReadingTime::kAfterStep);
  if (!decoded) return decoded;
  std::int32_t last = -1;  // Index in the batch of an input's last token.
  for (const StepInput& input : inputs) {
    last += static_cast<std::int32_t>(input.tokens.size());
    if (Result<void> taken = take(input, last, sampled); !taken) return taken;
  }
  return {};
}

/// After an error the sequences hold what they held before.
Result<void> LlamaEngine::decode(llama_batch batch, std::span<const StepInput> inputs) {
  tick();
  int status = 0;
  std::string thrown;
  try {
    status = llama_decode(context_.get(), batch);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    status = -1;
    thrown = error.what();
  }
  if (status == 0) return {};
  for (const StepInput& input : inputs) {
    llama_memory_seq_rm(memory(), static_cast<llama_seq_id>(input.sequence),
                        static_cast<llama_pos>(at(input.sequence).tokens), -1);
  }
  if (status == 1) {
    return fail(Code::kOutOfMemory, fmt::format("no free cells for {} tokens", batch.n_tokens));
  }
  return fail(Code::kInternal, fmt::format("llama_decode: {} {}", status,
                                           thrown.empty() ? last_llama_error() : thrown));
}

/// One picture: its embeddings go where the token embeddings of a text would. A model that looks at
/// it as a whole gets it in one batch, and each position sees all of the others.
Result<void> LlamaEngine::step_image(const StepInput& input, std::vector<Token>& sampled) {
  const LlamaSequence& sequence = at(input.sequence);
  PENSIEVE_CHECK(vision_ != nullptr && sequence.images != nullptr);
  const LlamaImages::Part* const part = sequence.images->part_at(sequence.tokens);
  PENSIEVE_CHECK(part != nullptr && part->tokens == input.tokens.size());
  const std::size_t once =
      std::min<std::size_t>(options_.step_tokens_max, llama_n_batch(context_.get()));
  const bool is_causal = vision_->is_causal();
  // Before the encoder works for seconds in vain.
  if (Result<void> room =
          check_room(is_causal ? std::min(once, input.tokens.size()) : input.tokens.size());
      !room || input.tokens.size() > cells_.free_count()) {
    return fail(Code::kOutOfMemory,
                fmt::format("no cells for an image of {} tokens", input.tokens.size()));
  }
  const Result<std::span<const float>> rows = vision_->encode(*sequence.images, *part);
  if (!rows) return std::unexpected(rows.error());
  const std::size_t width = rows->size() / part->tokens;
  use_threads(thread_count_.threads(StepKind::kPrompt));
  llama_set_causal_attn(context_.get(), is_causal);
  Result<void> decoded;
  std::size_t count = 0;
  for (std::size_t done = 0; done < input.tokens.size() && decoded; done += count) {
    count = std::min(once, input.tokens.size() - done);
    batch_->clear();
    for (std::size_t i = 0; i < count; ++i) {
      const bool has_output = input.samples && done + i + 1 == input.tokens.size();
      batch_->add(0, static_cast<llama_pos>(sequence.tokens + done + i), input.sequence,
                  has_output);
    }
    decoded = decode(batch_->view_of(rows->data() + done * width), {&input, 1});
  }
  llama_set_causal_attn(context_.get(), true);
  if (!decoded) return decoded;
  const bool is_last_of_file =
      part == &sequence.images->parts.back() || (part + 1)->file != part->file;
  Result<void> taken = take(input, static_cast<std::int32_t>(count) - 1, sampled);
  if (is_last_of_file) vision_->forget();
  return taken;
}

/// Books what a step has put into the cache, and samples. `last`: index in the batch of the input's
/// last token.
Result<void> LlamaEngine::take(const StepInput& input, std::int32_t last,
                               std::vector<Token>& sampled) {
  LlamaSequence& sequence = at(input.sequence);
  sequence.tokens += static_cast<std::uint32_t>(input.tokens.size());
  cells_.extend(input.sequence, sequence.tokens);
  if (!input.samples) return {};
  if (!sequence.sampler) {
    if (Result<void> set = set_sampling(input.sequence, {}, {}); !set) return set;
  }
  const float* const logits = llama_get_logits_ith(context_.get(), last);
  if (logits == nullptr) return fail(Code::kInternal, "llama.cpp gave no logits");
  sampled.push_back(sequence.sampler->sample({logits, vocabulary_}, scratch_));
  return {};
}

std::unique_ptr<Engine> make_llama_engine(const ProgressTick& tick) {
  return std::make_unique<LlamaEngine>(tick);
}

}  // namespace pensieve::engine
