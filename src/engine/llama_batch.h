// The arrays of a llama_batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <llama.h>

#include "engine/engine.h"

namespace pensieve::engine {

/// The tokens of one step, in arrays that are allocated once. REQUIRES of add(): less than
/// `tokens_max` were added since clear().
class LlamaBatch {
 public:
  explicit LlamaBatch(std::size_t tokens_max)
      : tokens_(tokens_max),
        positions_(tokens_max),
        counts_(tokens_max, 1),
        sequences_(tokens_max),
        sequence_pointers_(tokens_max),
        outputs_(tokens_max) {
    for (std::size_t i = 0; i < tokens_max; ++i) sequence_pointers_[i] = &sequences_[i];
  }
  LlamaBatch(const LlamaBatch&) = delete;
  LlamaBatch& operator=(const LlamaBatch&) = delete;

  void clear() { size_ = 0; }
  void add(Token token, llama_pos position, SequenceId sequence, bool has_output) {
    tokens_[size_] = token;
    positions_[size_] = position;
    sequences_[size_] = static_cast<llama_seq_id>(sequence);
    outputs_[size_] = has_output ? 1 : 0;
    ++size_;
  }
  std::size_t size() const { return size_; }
  llama_batch view() {
    return {static_cast<std::int32_t>(size_),
            tokens_.data(),
            nullptr,
            positions_.data(),
            counts_.data(),
            sequence_pointers_.data(),
            outputs_.data()};
  }
  /// The same positions with rows of embeddings in place of the tokens; they stay the caller's.
  llama_batch view_of(const float* rows) {
    llama_batch batch = view();
    batch.token = nullptr;
    batch.embd = const_cast<float*>(rows);  // llama_decode() only reads it.
    return batch;
  }

 private:
  std::size_t size_ = 0;
  std::vector<llama_token> tokens_;
  std::vector<llama_pos> positions_;
  std::vector<std::int32_t> counts_;  // Sequences of each token: always one.
  std::vector<llama_seq_id> sequences_;
  std::vector<llama_seq_id*> sequence_pointers_;
  std::vector<std::int8_t> outputs_;
};

}  // namespace pensieve::engine
