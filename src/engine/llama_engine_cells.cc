// The llama engine's KV cache: prefixes, sharing, resizing, states, giving memory back.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <llama-ext.h>
#include <llama.h>

#include "base/heap.h"
#include "base/log.h"
#include "engine/llama_engine_impl.h"

namespace pensieve::engine {
namespace {

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

}  // namespace

void LlamaEngine::forget(SequenceId sequence) {
  if (!context_) return;  // Its buffers were released, and no sequence holds anything.
  llama_memory_seq_rm(memory(), static_cast<llama_seq_id>(sequence), -1, -1);
  at(sequence).tokens = 0;
  cells_.keep(sequence, 0);
}

std::uint32_t LlamaEngine::keep_prefix(SequenceId sequence, std::uint32_t tokens) {
  LlamaSequence& kept = at(sequence);
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
  if (embedding_) return this->cells();  // What the longest input needs, and never more.
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
  const llama_context_params params = context_params(options_, embedding_);
  return fmt::format("llama {} {} K {} V {}", ggml_version(), ggml_commit(),
                     ggml_type_name(params.type_k), ggml_type_name(params.type_v));
}

Bytes LlamaEngine::clear_cache() {
  const std::optional<Bytes> before = resident();
  trim_heap();
  const std::optional<Bytes> after = resident();
  return before && after ? saturating_sub(*before, *after) : Bytes();
}

Bytes LlamaEngine::release_buffers() {
  for (const LlamaSequence& sequence : sequences_) PENSIEVE_CHECK(sequence.tokens == 0);
  const std::optional<Bytes> before = resident();
  context_.reset();
  clear_cache();
  const std::optional<Bytes> after = resident();
  return before && after ? saturating_sub(*before, *after) : Bytes();
}

}  // namespace pensieve::engine
