// Embeddings of the llama engine: a real model whose file names a pooling type, and a made-up
// encoder, which has no KV cache.
#include "engine/llama_embed.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <ggml.h>
#include <gguf.h>
#include <gtest/gtest.h>

#include "engine/testing/llama_fixture.h"

namespace pensieve::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kMean = LLAMA_POOLING_TYPE_MEAN;
constexpr std::uint32_t kLast = LLAMA_POOLING_TYPE_LAST;

double cosine(const std::vector<float>& one, const std::vector<float>& other) {
  double sum = 0;
  for (std::size_t i = 0; i < one.size(); ++i) sum += static_cast<double>(one[i]) * other.at(i);
  return sum;
}

/// A tiny BERT with random weights that are always the same.
class Encoder {
 public:
  explicit Encoder(std::uint32_t context) {
    const ggml_init_params params{.mem_size = 8U << 20, .mem_buffer = nullptr, .no_alloc = false};
    tensors_ = ggml_init(params);
    set_keys(context);
    add("token_embd.weight", {kWidth, kVocabulary});
    add("token_types.weight", {kWidth, 2});
    add("position_embd.weight", {kWidth, context});
    add_norm("token_embd_norm");
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      add_linear(part, kWidth, kWidth);
    }
    add_norm("blk.0.attn_output_norm");
    add_linear("ffn_up", kWidth, 2 * kWidth);
    add_linear("ffn_down", 2 * kWidth, kWidth);
    add_norm("blk.0.layer_output_norm");
  }
  ~Encoder() {
    gguf_free(file_);
    ggml_free(tensors_);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  void set(const char* key, std::uint32_t value) { gguf_set_val_u32(file_, key, value); }
  void write(const fs::path& path) const { gguf_write_to_file(file_, path.c_str(), false); }

 private:
  static constexpr std::int64_t kWidth = 32;
  static constexpr std::int64_t kVocabulary = 9;

  void set_keys(std::uint32_t context) {
    gguf_set_val_str(file_, "general.architecture", "bert");
    set("bert.block_count", 1);
    set("bert.context_length", context);
    set("bert.embedding_length", kWidth);
    set("bert.feed_forward_length", 2 * kWidth);
    set("bert.attention.head_count", 2);
    gguf_set_val_f32(file_, "bert.attention.layer_norm_epsilon", 1e-5F);
    gguf_set_val_bool(file_, "bert.attention.causal", false);
    const char* words[kVocabulary] = {"[PAD]",     "[UNK]",     "[CLS]",      "[SEP]", "[MASK]",
                                      "\u2581cat", "\u2581dog", "\u2581runs", "s"};
    const std::int32_t types[kVocabulary] = {3, 2, 3, 3, 3, 1, 1, 1, 1};
    gguf_set_val_str(file_, "tokenizer.ggml.model", "bert");
    gguf_set_arr_str(file_, "tokenizer.ggml.tokens", words, kVocabulary);
    gguf_set_arr_data(file_, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, kVocabulary);
    set("tokenizer.ggml.token_type_count", 2);
    set("bert.token_type_count", 2);
    set("tokenizer.ggml.padding_token_id", 0);
    set("tokenizer.ggml.unknown_token_id", 1);
    set("tokenizer.ggml.cls_token_id", 2);
    set("tokenizer.ggml.bos_token_id", 2);
    set("tokenizer.ggml.seperator_token_id", 3);
    set("tokenizer.ggml.eos_token_id", 3);
    set("tokenizer.ggml.mask_token_id", 4);
  }

  void add(const std::string& name, const std::vector<std::int64_t>& shape) {
    ggml_tensor* const tensor =
        ggml_new_tensor(tensors_, GGML_TYPE_F32, static_cast<int>(shape.size()), shape.data());
    ggml_set_name(tensor, name.c_str());
    std::uniform_real_distribution<float> numbers(-0.5F, 0.5F);
    auto* const data = static_cast<float*>(tensor->data);
    for (std::int64_t i = 0; i < ggml_nelements(tensor); ++i) data[i] = numbers(random_);
    gguf_add_tensor(file_, tensor);
  }
  void add_norm(const std::string& name) {
    add(name + ".weight", {kWidth});
    add(name + ".bias", {kWidth});
  }
  void add_linear(const std::string& part, std::int64_t in, std::int64_t out) {
    add("blk.0." + part + ".weight", {in, out});
    add("blk.0." + part + ".bias", {out});
  }

  std::minstd_rand random_{1};
  ggml_context* tensors_ = nullptr;
  gguf_context* file_ = gguf_init_empty();
};

class LlamaEmbedTest : public testing::Test {
 protected:
  LlamaEmbedTest() { fs::create_directory(folder_); }
  ~LlamaEmbedTest() override { fs::remove_all(folder_); }

  /// The test model with this pooling type.
  LoadOptions pooled(std::uint32_t pooling) {
    LoadOptions options = small_options();
    options.model_path = (folder_ / "pooled.gguf").string();
    ggml_context* tensors = nullptr;
    gguf_context* const source =
        gguf_init_from_file(model_path().c_str(), {.no_alloc = false, .ctx = &tensors});
    gguf_context* const file = gguf_init_empty();
    gguf_set_kv(file, source);
    gguf_set_val_u32(file, "llama.pooling_type", pooling);
    for (std::int64_t i = 0; i < gguf_get_n_tensors(source); ++i) {
      gguf_add_tensor(file, ggml_get_tensor(tensors, gguf_get_tensor_name(source, i)));
    }
    gguf_write_to_file(file, options.model_path.c_str(), false);
    gguf_free(file);
    gguf_free(source);
    ggml_free(tensors);
    return options;
  }
  LoadOptions encoder(std::uint32_t context, std::optional<std::uint32_t> pooling = kMean) {
    Encoder bert(context);
    if (pooling) bert.set("bert.pooling_type", *pooling);
    LoadOptions options = small_options();
    options.model_path = (folder_ / "encoder.gguf").string();
    options.context_tokens = 0;
    bert.write(options.model_path);
    return options;
  }
  static std::vector<float> vector_of(Engine& engine, std::span<const Token> tokens) {
    Result<std::vector<float>> vector = engine.embed(tokens);
    EXPECT_TRUE(vector) << vector.error().message;
    if (!vector) return {};
    EXPECT_NEAR(cosine(*vector, *vector), 1, 1e-5);
    return *std::move(vector);
  }

  const fs::path folder_ = fs::temp_directory_path() / ("embed-" + std::to_string(::getpid()));
};

TEST_F(LlamaEmbedTest, AModelThatNamesAPoolingTypeGivesVectorsAndNoAnswers) {
  const LoadOptions options = pooled(kMean);
  const std::unique_ptr<Engine> engine = make_llama_engine([] {});
  const Plan plan = engine->plan(options).value();
  const Result<ModelInfo> info = engine->load(options, [](float) {});
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->capabilities, Capabilities{.embeddings = true});
  EXPECT_EQ(info->context_tokens, 1024U);
  EXPECT_EQ(plan.context_tokens, 1024U);
  EXPECT_EQ(plan.cells, info->cells);
  EXPECT_EQ(engine->prepare({{{Role::kUser, "Hello"}}, false}).error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(engine->resize(256).value(), plan.cells);

  const std::vector<Token> cat = engine->tokenize_text("The cat sleeps.").value();
  const std::vector<float> alone = vector_of(*engine, cat);
  EXPECT_EQ(alone.size(), 576U);
  const std::vector<Token> long_text(1024, cat[0]);
  const std::vector<float> other = vector_of(*engine, long_text);  // In four steps.
  EXPECT_LT(cosine(alone, other), 0.999);
  EXPECT_EQ(vector_of(*engine, cat), alone) << "what was computed before has no part in it";
  engine->release_buffers();
  EXPECT_EQ(vector_of(*engine, cat), alone);
  EXPECT_EQ(engine->cells_free(), engine->cells());
}

TEST_F(LlamaEmbedTest, SeveralStepsGiveWhatOneStepGives) {
  for (const std::uint32_t pooling : {kMean, kLast}) {
    LoadOptions options = pooled(pooling);
    options.step_tokens_max = 32;
    const std::unique_ptr<Engine> stepped = loaded(options);
    options.step_tokens_max = 256;
    const std::unique_ptr<Engine> whole = loaded(options);
    std::string text;
    for (int i = 0; i < 20; ++i) text += "Rivers run to the sea. ";
    const std::vector<Token> tokens = whole->tokenize_text(text).value();
    ASSERT_GT(tokens.size(), 96U);
    ASSERT_LT(tokens.size(), 256U);
    EXPECT_GT(cosine(vector_of(*stepped, tokens), vector_of(*whole, tokens)), 0.999) << pooling;
  }
}

TEST_F(LlamaEmbedTest, AnEncoderWithoutKvCacheTakesAnInputOfItsWholeWindow) {
  const LoadOptions options = encoder(300);
  const std::unique_ptr<Engine> engine = make_llama_engine([] {});
  const Result<Plan> plan = engine->plan(options);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->estimate.kv, Bytes());
  const Result<ModelInfo> info = engine->load(options, [](float) {});
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_TRUE(info->capabilities.embeddings);
  EXPECT_EQ(info->context_tokens, 300U);

  const std::vector<Token> cat = engine->tokenize_text("cat runs").value();
  EXPECT_EQ(cat, (std::vector<Token>{2, 5, 7, 3})) << "[CLS] and [SEP] around it";
  const std::vector<float> alone = vector_of(*engine, cat);
  EXPECT_LT(cosine(alone, vector_of(*engine, engine->tokenize_text("dog runs").value())), 0.9999);
  vector_of(*engine, std::vector<Token>(300, 6));
  EXPECT_EQ(engine->embed(std::vector<Token>(301, 6)).error().code, Code::kInvalidArgument);
  EXPECT_EQ(vector_of(*engine, cat), alone);
  EXPECT_EQ(engine->keep_prefix(0, 0), 0U);
  EXPECT_EQ(engine->share_prefix(0, 1, 5), 0U);
  engine->clear_cache();
  engine->release_buffers();
  EXPECT_EQ(engine->resize(4096).value(), info->cells);
  EXPECT_EQ(vector_of(*engine, cat), alone);
}

TEST_F(LlamaEmbedTest, AnEncoderIsOneWithoutThePoolingKeyTooAndItsWindowIsBounded) {
  const std::unique_ptr<Engine> engine = make_llama_engine([] {});
  EXPECT_EQ(engine->plan(encoder(300, std::nullopt)).value().context_tokens, 300U);
  const Plan plan = engine->plan(encoder(5000)).value();
  EXPECT_EQ(plan.context_tokens, kWholeInputTokensMax);
  EXPECT_EQ(plan.context_train_tokens, 5000U);
  LoadOptions small = encoder(5000);
  small.context_tokens = 100;
  EXPECT_EQ(engine->plan(small).value().context_tokens, 100U);
  EXPECT_LT(engine->plan(small).value().estimate.total(), plan.estimate.total());
}

TEST_F(LlamaEmbedTest, TokensThatAreNoneAndModelsThatRankAreRefused) {
  const std::unique_ptr<Engine> engine = loaded(encoder(300));
  for (const std::vector<Token>& tokens : {std::vector<Token>{}, {-1}, {9}}) {
    EXPECT_EQ(engine->embed(tokens).error().code, Code::kInvalidArgument);
  }
  const Result<Plan> ranks = make_llama_engine([] {})->plan(encoder(300, LLAMA_POOLING_TYPE_RANK));
  ASSERT_FALSE(ranks);
  EXPECT_NE(ranks.error().message.find("ranks texts"), std::string::npos);
}

TEST_F(LlamaEmbedTest, TheEstimateCoversTheLongestInput) {
  const LoadOptions options = pooled(kMean);
  const std::unique_ptr<Engine> engine = make_llama_engine([] {});
  const Plan plan = engine->plan(options).value();
  const Bytes before = resident();
  ASSERT_TRUE(engine->load(options, [](float) {}));
  vector_of(*engine, std::vector<Token>(1024, 5));
  EXPECT_LE(saturating_sub(resident(), before), plan.estimate.total());
}

TEST_F(LlamaEmbedTest, AModelThatGeneratesTextGivesNone) {
  const std::unique_ptr<Engine> engine = loaded(small_options());
  EXPECT_EQ(engine->embed(std::vector<Token>{1}).error().message, "this model gives no embeddings");
}

}  // namespace
}  // namespace pensieve::engine
