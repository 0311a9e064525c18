// Saving and restoring what a llama context holds, and whether what it holds is whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <llama.h>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::engine {

// Errors of saving: kOutOfMemory, and `out` is empty. Nothing is thrown.

/// The state of all sequences at once. Unlike the states of each, it keeps that they share cells.
Result<void> save_all(llama_context* context, std::string& out);

/// Into an empty context; an empty `state` leaves it so. Errors: kOutOfMemory where the state does
/// not fit; the context must not be used then.
Result<void> restore_all(llama_context* context, const std::string& state);

Bytes sequence_state_bytes(llama_context* context, SequenceId sequence);
Result<void> save_sequence(llama_context* context, SequenceId sequence, std::string& out);

/// Errors: kInvalidArgument where `state` is not one of `tokens` tokens; the sequence may then hold
/// anything and must be cleared.
Result<void> restore_sequence(llama_context* context, SequenceId sequence, std::string_view state,
                              std::uint32_t tokens);

/// Whether the token at position `tokens` would see all that it must see. Layers with a sliding
/// window forget what left the window, and llama.cpp computes on without it, wrongly.
bool can_go_on_from(llama_context* context, SequenceId sequence, std::uint32_t tokens);

/// Whether `sequence` holds exactly `tokens` tokens, and all that the next one must see.
bool holds(llama_context* context, SequenceId sequence, std::uint32_t tokens);

}  // namespace pensieve::engine
