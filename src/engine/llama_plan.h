// What a GGUF model is and takes, before it is loaded; and the parameters that plan and load share.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <ggml-cpu.h>
#include <llama.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/llama_embed.h"

namespace pensieve::engine {

struct FreeModel {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
using LlamaModel = std::unique_ptr<llama_model, FreeModel>;

struct FreeContext {
  void operator()(llama_context* context) const { llama_free(context); }
};
using LlamaContext = std::unique_ptr<llama_context, FreeContext>;

struct FreeThreads {
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};
using LlamaThreads = std::unique_ptr<ggml_threadpool, FreeThreads>;

/// Sends llama.cpp's log lines to ours (warnings and errors as such, all else as debug) and
/// prepares the library. May be called again.
void start_llama();

/// The last error that llama.cpp logged, for messages; empty where there was none.
std::string last_llama_error();

/// Whether the file can be a GGUF model. Errors: kNotFound, kInvalidArgument, each with what to do.
Result<void> check_model_file(const std::string& path);

llama_model_params model_params();

/// `cells` of the options must not be 0. For a model that gives embeddings the options are those of
/// embedding_options().
llama_context_params context_params(const LoadOptions& options,
                                    const std::optional<EmbeddingKind>& embedding);

/// REQUIRES: start_llama().
Result<Plan> plan_llama(const LoadOptions& options);

}  // namespace pensieve::engine
