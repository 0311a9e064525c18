// The llama engine's embeddings: one vector for one text.
#include "engine/llama_embed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <string>
#include <string_view>

#include <fmt/core.h>
#include <llama.h>

#include "engine/llama_engine_impl.h"

namespace pensieve::engine {
namespace {

/// Architectures whose layers see the whole input, whatever the file says: llama.cpp gives them no
/// KV cache. Files of them that are older than the key have no pooling type.
constexpr std::array<std::string_view, 10> kEncoders = {
    "bert",         "modern-bert",  "nomic-bert", "nomic-bert-moe",  "neo-bert",
    "jina-bert-v2", "jina-bert-v3", "eurobert",   "gemma-embedding", "llama-embed"};

std::optional<std::string> metadata(const llama_model* model, const std::string& key) {
  std::array<char, 128> value{};
  const auto size = llama_model_meta_val_str(model, key.c_str(), value.data(), value.size());
  return size < 0 ? std::nullopt : std::optional(std::string(value.data()));
}

/// Adds the vector of `count` tokens to that of the `done` tokens before them, as `pooling` says.
/// Those of several steps are what one step would have given: a mean is a sum, and the last token
/// is the last step's.
void add_step(std::vector<float>& vector, std::span<const float> step,
              enum llama_pooling_type pooling, std::size_t done, std::size_t count) {
  if (done == 0) {
    vector.assign(step.begin(), step.end());
    return;
  }
  if (pooling == LLAMA_POOLING_TYPE_CLS) return;  // The first token's.
  if (pooling == LLAMA_POOLING_TYPE_LAST) {
    vector.assign(step.begin(), step.end());
    return;
  }
  const auto share = static_cast<float>(count) / static_cast<float>(done + count);
  for (std::size_t i = 0; i < vector.size(); ++i) vector[i] += share * (step[i] - vector[i]);
}

/// Scales `vector` to length 1. False where it has no length.
bool normalise(std::vector<float>& vector) {
  double sum = 0;
  for (const float value : vector) sum += static_cast<double>(value) * value;
  const double length = std::sqrt(sum);
  if (!std::isfinite(length) || length == 0) return false;
  for (float& value : vector) value = static_cast<float>(value / length);
  return true;
}

}  // namespace

Result<std::optional<EmbeddingKind>> embedding_kind(const llama_model* model) {
  const std::string architecture = metadata(model, "general.architecture").value_or("");
  const bool encodes = std::ranges::find(kEncoders, architecture) != kEncoders.end();
  const bool sees_all =
      encodes || metadata(model, architecture + ".attention.causal") == std::string("false");
  const std::string pooling = metadata(model, architecture + ".pooling_type").value_or("");
  const auto is = [&](enum llama_pooling_type type) {
    return pooling == std::to_string(static_cast<int>(type));
  };
  for (const enum llama_pooling_type type :
       {LLAMA_POOLING_TYPE_MEAN, LLAMA_POOLING_TYPE_CLS, LLAMA_POOLING_TYPE_LAST}) {
    if (is(type)) return EmbeddingKind{type, sees_all};
  }
  if (!pooling.empty() && !is(LLAMA_POOLING_TYPE_NONE) && !is(LLAMA_POOLING_TYPE_UNSPECIFIED)) {
    return fail(Code::kInvalidArgument,
                fmt::format("the model ranks texts (pooling type {}), and this server has no use "
                            "for that",
                            pooling));
  }
  if (!encodes) return std::nullopt;
  return EmbeddingKind{LLAMA_POOLING_TYPE_MEAN, true};
}

LoadOptions embedding_options(LoadOptions options, const EmbeddingKind& kind,
                              std::uint32_t context_train_tokens) {
  const std::uint32_t most =
      std::min(context_train_tokens, kind.whole ? kWholeInputTokensMax : kSteppedInputTokensMax);
  options.context_tokens =
      options.context_tokens == 0 ? most : std::min(options.context_tokens, most);
  options.cells = options.context_tokens;
  if (kind.whole) options.step_tokens_max = options.cells;
  return options;
}

Result<std::vector<Token>> LlamaEngine::tokenize_text(std::string_view text) const {
  if (text.size() > prompt_bytes_max(options_.context_tokens)) {
    return fail(Code::kInvalidArgument, fmt::format("a text of {} bytes is too long for {} tokens",
                                                    text.size(), options_.context_tokens));
  }
  std::vector<Token> tokens(text.size() + 4);
  const auto tokenize_into = [&] {
    return llama_tokenize(vocab_, text.data(), static_cast<std::int32_t>(text.size()),
                          tokens.data(), static_cast<std::int32_t>(tokens.size()), true, false);
  };
  try {
    std::int32_t count = tokenize_into();
    if (count < 0) {
      tokens.resize(static_cast<std::size_t>(-static_cast<std::int64_t>(count)));
      count = tokenize_into();
    }
    PENSIEVE_CHECK(count >= 0);
    tokens.resize(static_cast<std::size_t>(count));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument, fmt::format("a text is no text: {}", error.what()));
  }
  return tokens;
}

Result<std::vector<Token>> LlamaEngine::tokenize(const Prompt& prompt) const {
  if (chat_) return chat_->tokenize(prompt);
  std::string text;
  for (const Message& message : prompt.messages) text += message.text;
  return tokenize_text(text);
}

Result<Prepared> LlamaEngine::prepare(const Prompt& prompt) const {
  if (chat_) return chat_->prepare(prompt, options_.context_tokens);
  return fail(Code::kInvalidArgument,
              "this model gives embeddings (POST /v1/embeddings) and no answers");
}

Result<std::vector<float>> LlamaEngine::embed(std::span<const Token> tokens) {
  if (!embedding_) return Engine::embed(tokens);
  if (tokens.empty() || tokens.size() > options_.context_tokens) {
    return fail(Code::kInvalidArgument, fmt::format("an input of {} tokens; 1 to {} are possible",
                                                    tokens.size(), options_.context_tokens));
  }
  for (const Token token : tokens) {
    if (token >= 0 && static_cast<std::size_t>(token) < vocabulary_) continue;
    return fail(Code::kInvalidArgument,
                fmt::format("token {} is none of this model's: it has {}", token, vocabulary_));
  }
  if (!context_) {
    if (Result<void> opened = open_context(); !opened) {
      return fail(Code::kInternal, opened.error().message);
    }
  }
  const std::size_t once =
      std::min<std::size_t>(options_.step_tokens_max, llama_n_batch(context_.get()));
  const auto width = static_cast<std::size_t>(llama_model_n_embd_out(model_.get()));
  std::vector<float> vector;
  // What another input has left in the cache; an encoder has none, and there it does nothing.
  llama_memory_clear(memory(), false);
  for (std::size_t done = 0; done < tokens.size();) {
    const std::size_t count = std::min(once, tokens.size() - done);
    batch_->clear();
    for (std::size_t i = done; i < done + count; ++i) {
      batch_->add(tokens[i], static_cast<llama_pos>(i), 0, true);
    }
    follow_cores(ReadingTime::kBeforeStep);
    use_threads(thread_count_.threads(StepKind::kPrompt));
    const Result<void> decoded = decode(batch_->view(), {});
    follow_cores(ReadingTime::kAfterStep);
    if (!decoded) return fail(Code::kInternal, decoded.error().message);
    const float* const pooled = llama_get_embeddings_seq(context_.get(), 0);
    if (pooled == nullptr) return fail(Code::kInternal, "llama.cpp gave no embedding");
    add_step(vector, {pooled, width}, embedding_->pooling, done, count);
    done += count;
  }
  llama_memory_clear(memory(), false);
  if (!normalise(vector)) {
    return fail(Code::kInvalidArgument, "the model has no embedding for this input");
  }
  return vector;
}

}  // namespace pensieve::engine
