// The llama engine's class. For llama_engine*.cc only: llama_engine.h is how others see it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <llama.h>

#include "base/clock.h"
#include "engine/cell_table.h"
#include "engine/engine.h"
#include "engine/llama_batch.h"
#include "engine/llama_chat.h"
#include "engine/llama_embed.h"
#include "engine/llama_plan.h"
#include "engine/llama_sampler.h"
#include "engine/llama_state.h"
#include "engine/llama_vision.h"
#include "engine/thread_count.h"

namespace pensieve::engine {

/// What the engine knows of one sequence.
struct LlamaSequence {
  std::uint32_t tokens = 0;  // Held in the cache, at the positions from 0.
  std::optional<LlamaSampler> sampler;
  std::shared_ptr<const LlamaImages> images;  // Null: there are none.
};

class LlamaEngine final : public Engine {
 public:
  explicit LlamaEngine(ProgressTick tick) : tick_(std::move(tick)) { start_llama(); }

  Result<Plan> plan(const LoadOptions& options) override { return plan_llama(options); }
  Result<ModelInfo> load(const LoadOptions& options,
                         const std::function<void(float)>& progress) override;
  Result<std::vector<Token>> tokenize(const Prompt& prompt) const override;
  Result<Prepared> prepare(const Prompt& prompt) const override;
  Result<std::vector<Token>> tokenize_text(std::string_view text) const override;
  Result<std::vector<float>> embed(std::span<const Token> tokens) override;
  void append_piece(Token token, std::string& out) const override;
  bool ends_generation(Token token) const override { return llama_vocab_is_eog(vocab_, token); }
  Result<void> set_sampling(SequenceId sequence, const Sampling& sampling,
                            std::span<const Token> history) override;
  void set_shape(SequenceId sequence, std::shared_ptr<const AnswerShape> shape,
                 std::span<const Token> answer) override;
  void set_images(SequenceId sequence, std::shared_ptr<const PromptImages> images) override;
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
  Result<void> open_projector();
  Result<void> open_context();
  Result<void> decode(llama_batch batch, std::span<const StepInput> inputs);
  Result<void> step_image(const StepInput& input, std::vector<Token>& sampled);
  Result<void> take(const StepInput& input, std::int32_t last, std::vector<Token>& sampled);
  Result<void> reopen(std::uint32_t cells, const std::string& copy);
  Result<void> start_threads(LlamaThreads& threads, std::uint32_t poll);
  void use_threads(std::uint32_t threads);
  void forget(SequenceId sequence);
  Result<void> check_room(std::size_t tokens) const;
  void follow_cores(ReadingTime time);
  void tick() const {
    if (tick_) tick_();
  }
  LlamaSequence& at(SequenceId sequence) {
    PENSIEVE_CHECK(sequence < sequences_.size());
    return sequences_[sequence];
  }
  llama_memory_t memory() const { return llama_get_memory(context_.get()); }

  const ProgressTick tick_;
  const Clock& clock_ = steady_clock();
  LoadOptions options_;                     // As loaded.
  std::optional<EmbeddingKind> embedding_;  // Empty: the model generates text.
  ThreadCount thread_count_{1};
  // Destroyed from the last to the first: the context uses the threads and the model.
  LlamaModel model_;
  LlamaThreads all_threads_;
  LlamaThreads few_threads_;
  LlamaContext context_;
  std::unique_ptr<LlamaVision> vision_;  // Null: the model cannot see.
  std::unique_ptr<LlamaChat> chat_;      // Null where the model gives embeddings.
  std::unique_ptr<LlamaBatch> batch_;
  const llama_vocab* vocab_ = nullptr;
  std::size_t vocabulary_ = 0;
  SamplingDefaults defaults_;
  std::vector<LlamaSequence> sequences_;
  CellTable cells_;  // llama.cpp does not tell how many cells are used.
  std::vector<llama_token_data> scratch_;
  Bytes kv_per_token_;
};

}  // namespace pensieve::engine
