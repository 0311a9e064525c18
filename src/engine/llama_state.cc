#include "engine/llama_state.h"

#include <algorithm>
#include <new>

#include <fmt/core.h>

#include "engine/llama_plan.h"

namespace pensieve::engine {
namespace {

llama_seq_id id_of(SequenceId sequence) {
  return static_cast<llama_seq_id>(sequence);
}

/// Room for a state. Missing memory is an answer here: who asked can do without the state.
Result<void> make_room(std::string& out, std::size_t size) {
  out.clear();
  try {
    out.resize(size);
  } catch (const std::bad_alloc&) {
    return fail(Code::kOutOfMemory, fmt::format("no memory for a state of {} bytes", size));
  }
  return {};
}

Result<void> saved_or_error(std::string& out, std::size_t written) {
  if (written == out.size() && written > 0) return {};
  out.clear();
  return fail(Code::kOutOfMemory, fmt::format("saving a state: {}", last_llama_error()));
}

std::uint8_t* bytes_of(std::string& text) {
  return reinterpret_cast<std::uint8_t*>(text.data());
}

const std::uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

}  // namespace

Result<void> save_all(llama_context* context, std::string& out) {
  if (Result<void> room = make_room(out, llama_state_get_size(context)); !room) return room;
  return saved_or_error(out, llama_state_get_data(context, bytes_of(out), out.size()));
}

Result<void> restore_all(llama_context* context, const std::string& state) {
  if (state.empty()) return {};
  if (llama_state_set_data(context, bytes_of(std::string_view(state)), state.size()) ==
      state.size()) {
    return {};
  }
  return fail(Code::kOutOfMemory, fmt::format("restoring the sequences into {} cells: {}",
                                              llama_n_ctx(context), last_llama_error()));
}

Bytes sequence_state_bytes(llama_context* context, SequenceId sequence) {
  return Bytes(llama_state_seq_get_size(context, id_of(sequence)));
}

Result<void> save_sequence(llama_context* context, SequenceId sequence, std::string& out) {
  const std::size_t size = sequence_state_bytes(context, sequence).count();
  if (Result<void> room = make_room(out, size); !room) return room;
  return saved_or_error(
      out, llama_state_seq_get_data(context, bytes_of(out), out.size(), id_of(sequence)));
}

Result<void> restore_sequence(llama_context* context, SequenceId sequence, std::string_view state,
                              std::uint32_t tokens) {
  const std::size_t read =
      llama_state_seq_set_data(context, bytes_of(state), state.size(), id_of(sequence));
  if (tokens > 0 && read == state.size() && holds(context, sequence, tokens)) return {};
  return fail(Code::kInvalidArgument, fmt::format("not a state of {} tokens of this model: {}",
                                                  tokens, last_llama_error()));
}

bool can_go_on_from(llama_context* context, SequenceId sequence, std::uint32_t tokens) {
  const std::int32_t window = llama_model_n_swa(llama_get_model(context));
  if (window <= 0) return true;
  const llama_pos first = llama_memory_seq_pos_min(llama_get_memory(context), id_of(sequence));
  return first >= 0 && first <= std::max(0, static_cast<llama_pos>(tokens) - window);
}

bool holds(llama_context* context, SequenceId sequence, std::uint32_t tokens) {
  llama_memory_t const memory = llama_get_memory(context);
  const llama_pos last = llama_memory_seq_pos_max(memory, id_of(sequence));
  if (last + 1 != static_cast<llama_pos>(tokens)) return false;
  const llama_model* const model = llama_get_model(context);
  // A recurrent state is one place, that of the last token.
  if (llama_model_is_recurrent(model) || llama_model_is_hybrid(model)) return true;
  if (llama_model_n_swa(model) > 0) return can_go_on_from(context, sequence, tokens);
  return llama_memory_seq_pos_min(memory, id_of(sequence)) == 0;
}

}  // namespace pensieve::engine
