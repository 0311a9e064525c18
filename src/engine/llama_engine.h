// Inference with llama.cpp, in this process: GGUF models on the processor.
#pragma once

#include <memory>

#include "engine/engine.h"

namespace pensieve::engine {

/// llama.cpp calls abort() on its own faults: run this engine only in a process that may die, with
/// GGML_NO_BACKTRACE=1 in its environment, or the dying process starts a debugger first.
///
/// Of Sampling, what is unset is the model file's (general.sampling.*), else temperature 0.7,
/// top_p 0.95, top_k 40, min_p 0.05. An unset seed is random. `history` is not used: nothing
/// penalises repetition.
std::unique_ptr<Engine> make_llama_engine(const ProgressTick& tick);

}  // namespace pensieve::engine
