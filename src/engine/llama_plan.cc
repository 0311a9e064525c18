#include "engine/llama_plan.h"

#include <algorithm>
#include <array>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string_view>

#include <fmt/core.h>
#include <llama-ext.h>
#include <mtmd.h>

#include "base/log.h"
#include "engine/grammar_memory.h"
#include "engine/llama_vision.h"

namespace pensieve::engine {
namespace {

namespace fs = std::filesystem;

std::mutex g_error_mutex;
std::string g_last_error;
// plan() reads the file as load() will: its lines would all come twice.
thread_local bool t_is_planning = false;

void on_log(ggml_log_level level, const char* text, void* /*unused*/) {
  std::string_view line(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.remove_suffix(1);
  if (line.find_first_not_of('.') == std::string_view::npos) return;  // The loader's dots.
  if (level == GGML_LOG_LEVEL_ERROR) {
    const std::lock_guard lock(g_error_mutex);
    g_last_error = line;
  }
  if (t_is_planning) {
    log::debug("llama.cpp: {}", line);
  } else if (level == GGML_LOG_LEVEL_ERROR) {
    log::error("llama.cpp: {}", line);
  } else if (level == GGML_LOG_LEVEL_WARN) {
    log::warning("llama.cpp: {}", line);
  } else {
    log::debug("llama.cpp: {}", line);
  }
}

bool is_mlx_folder(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder / "config.json", error)) return false;
  const fs::directory_iterator entries(folder, error);
  return std::any_of(begin(entries), end(entries), [](const fs::directory_entry& entry) {
    return entry.path().extension() == ".safetensors";
  });
}

/// Memory that llama.cpp takes outside of its buffers, and ours. The parts are upper bounds of
/// measurements with two vocabularies (49,152 and 262,144 tokens) and contexts of 2,048 to 32,768.
/// `outputs`: the rows of logits, and of embeddings of `width` where there are such, that llama.cpp
/// keeps.
Bytes process_bytes(const LoadOptions& options, std::uint64_t vocabulary, std::uint64_t outputs,
                    std::uint64_t width) {
  constexpr std::uint64_t kProgram = 48ULL << 20;  // Code, heap, graphs, template; 30 MB measured.
  constexpr std::uint64_t kPerPiece = 240;         // Text, score, two hash maps; 190 measured.
  constexpr std::uint64_t kPerCell = 192;  // Position, set of sequences, a node of a std::set.
  // One prompt at a time is parsed and tokenised; its tokens wait with those of others.
  constexpr std::uint64_t kPerPromptByte = 160;
  constexpr std::uint64_t kWaitingPrompts = 64;
  const std::uint64_t prompts =
      kPerPromptByte * prompt_bytes_max(options.context_tokens) +
      (kWaitingPrompts + options.sequences_max) * sizeof(Token) * options.context_tokens;
  const std::uint64_t rows = outputs * (vocabulary + width) * sizeof(float);
  return Bytes(kProgram + kPerPiece * vocabulary + kPerCell * options.cells + prompts + rows);
}

/// A saved state of all sequences has the rows of the used cells, and for each cell its position
/// and its sequences; a model with sliding windows has two caches.
Bytes resize_copy_bytes(const LoadOptions& options, std::uint64_t kv) {
  constexpr std::uint64_t kHeads = 64ULL << 10;  // Of the state and of its layers.
  const std::uint64_t per_cell = 2 * sizeof(std::int32_t) * (1 + options.sequences_max);
  return Bytes(kv + 2 * per_cell * options.cells + kHeads);
}

Result<Plan> plan_opened(LoadOptions options) {
  llama_model_params params = model_params();
  params.no_alloc = true;
  params.load_mode = LLAMA_LOAD_MODE_NONE;
  const LlamaModel model(llama_model_load_from_file(options.model_path.c_str(), params));
  if (!model) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} cannot be loaded: {}", options.model_path, last_llama_error()));
  }
  if (!llama_model_has_decoder(model.get()) || llama_model_has_encoder(model.get())) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} is no text generation model", options.model_path));
  }
  const Result<std::optional<EmbeddingKind>> kind = embedding_kind(model.get());
  if (!kind) return std::unexpected(kind.error());
  Plan plan;
  plan.context_train_tokens = static_cast<std::uint32_t>(llama_model_n_ctx_train(model.get()));
  if (*kind) options = embedding_options(options, **kind, plan.context_train_tokens);
  plan.context_tokens = options.context_tokens == 0
                            ? plan.context_train_tokens
                            : std::min(options.context_tokens, plan.context_train_tokens);
  const bool has_window_only = options.cells == 0;
  if (has_window_only) options.cells = plan.context_tokens;
  const LlamaContext context(llama_init_from_model(model.get(), context_params(options, *kind)));
  if (!context) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: no KV cache of {} cells: {}", options.model_path, options.cells,
                            last_llama_error()));
  }
  if (!*kind && llama_get_memory(context.get()) == nullptr) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} does not generate text token by token", options.model_path));
  }
  plan.cells = options.cells = llama_n_ctx(context.get());  // llama.cpp rounds up.
  if (has_window_only) plan.context_tokens = plan.cells;

  const ggml_backend_buffer_type_t plain = ggml_backend_cpu_buffer_type();
  std::uint64_t copied = 0;
  std::uint64_t kv = 0;
  std::uint64_t compute = 0;
  for (const auto& [type, part] : llama_get_memory_breakdown(context.get())) {
    // Only plain tensors are used where the file is mapped; the others (repacked for the
    // processor's wide instructions, or for a device) are copies.
    if (type != plain) copied += part.model;
    kv += part.context;
    compute += part.compute;
  }
  // The whole file is mapped and read, also the part that is then copied.
  plan.estimate.weights_mapped = Bytes(llama_model_size(model.get()));
  plan.estimate.weights_copied = Bytes(copied);
  plan.estimate.kv = Bytes(kv);
  plan.estimate.compute = Bytes(compute);
  plan.resize_copy = resize_copy_bytes(options, kv);
  const auto vocabulary =
      static_cast<std::uint64_t>(llama_vocab_n_tokens(llama_model_get_vocab(model.get())));
  plan.estimate.process =
      process_bytes(options, vocabulary, *kind ? options.step_tokens_max : options.sequences_max,
                    *kind ? static_cast<std::uint64_t>(llama_model_n_embd_out(model.get())) : 0);
  // Who embeds has no answers.
  if (!*kind) plan.estimate.grammars = GrammarMemory::of(vocabulary).total(options.sequences_max);
  if (!options.projector_path.empty()) {
    const Result<Bytes> images = projector_bytes(options.projector_path);
    if (!images) return std::unexpected(images.error());
    plan.estimate.images = *images;
  }
  return plan;
}

}  // namespace

void start_llama() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(on_log, nullptr);
    mtmd_log_set(on_log, nullptr);
    llama_backend_init();
  });
}

std::string last_llama_error() {
  const std::lock_guard lock(g_error_mutex);
  return g_last_error;
}

Result<void> check_model_file(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return fail(Code::kNotFound, fmt::format("model file {} does not exist", path));
  }
  if (fs::is_directory(status)) {
    if (is_mlx_folder(path)) {
      return fail(Code::kInvalidArgument,
                  fmt::format("{} is an MLX model; MLX models need an MLX build, and this build "
                              "has: llama, scripted. Take a GGUF file of the model instead",
                              path));
    }
    return fail(Code::kInvalidArgument,
                fmt::format("{} is a folder; name the GGUF file in it", path));
  }
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Code::kNotFound, fmt::format("model file {} cannot be opened", path));
  file.read(magic.data(), magic.size());
  if (!file || std::string_view(magic.data(), magic.size()) != "GGUF") {
    return fail(Code::kInvalidArgument,
                fmt::format("{} is not a GGUF file; the llama engine needs one", path));
  }
  return {};
}

llama_model_params model_params() {
  llama_model_params params = llama_model_default_params();
  params.load_mode = LLAMA_LOAD_MODE_MMAP;
  return params;
}

llama_context_params context_params(const LoadOptions& options,
                                    const std::optional<EmbeddingKind>& embedding) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = options.cells;
  params.n_batch = options.step_tokens_max;
  params.n_ubatch = options.step_tokens_max;
  params.n_seq_max = options.sequences_max;
  // A step has at most one output per sequence. The default, one per token, costs a row of logits
  // for each token of a step: 512 MiB with a vocabulary of 262,144.
  params.n_outputs_max = std::min(options.sequences_max, options.step_tokens_max);
  params.n_threads = static_cast<std::int32_t>(options.threads);
  params.n_threads_batch = params.n_threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
  params.type_k = GGML_TYPE_F16;
  params.type_v = GGML_TYPE_F16;
  params.no_perf = true;
  params.swa_full = false;
  params.kv_unified = true;
  if (embedding) {
    params.embeddings = true;
    params.pooling_type = embedding->pooling;
    // One input at a time; and llama.cpp aborts where several do not divide the tokens of a step.
    params.n_seq_max = 1;
    params.n_outputs_max = options.step_tokens_max;  // Each token is pooled.
  }
  return params;
}

Result<Plan> plan_llama(const LoadOptions& options) {
  if (Result<void> checked = check_model_file(options.model_path); !checked) {
    return std::unexpected(checked.error());
  }
  if (options.sequences_max == 0 || options.sequences_max > llama_max_parallel_sequences()) {
    return fail(Code::kInvalidArgument,
                fmt::format("the llama engine takes 1 to {} sequences, not {}",
                            llama_max_parallel_sequences(), options.sequences_max));
  }
  // A step has room for one token of each sequence: llama.cpp counts on it.
  if (options.step_tokens_max < options.sequences_max || options.threads == 0) {
    return fail(Code::kInvalidArgument,
                "the llama engine needs a thread and, in a step, a token for each sequence");
  }
  struct Planning {
    Planning() { t_is_planning = true; }
    ~Planning() { t_is_planning = false; }
  } const planning;
  try {
    return plan_opened(options);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} cannot be loaded: {}", options.model_path, error.what()));
  }
}

}  // namespace pensieve::engine
