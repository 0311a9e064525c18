// The llama engine on a small real model: answers, prefixes, batches, memory, files that are none.
#include "engine/llama_engine.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include <gtest/gtest.h>

#include "engine/testing/llama_fixture.h"

namespace pensieve::engine {
namespace {

TEST_F(LlamaEngineTest, SaysWhatItCanDoWithThisModel) {
  const Result<ModelInfo> info = make_llama_engine([] {})->load(small_options(), [](float) {});
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->capabilities, Capabilities{.structured_outputs = true});
}

TEST_F(LlamaEngineTest, GreedyIsReproducible) {
  const std::vector<Token> tokens = prompt(100);
  const std::vector<Token> first = decode(0, prefill(0, tokens));
  engine_->keep_prefix(0, 0);
  EXPECT_EQ(decode(0, prefill(0, tokens)), first);
}

TEST_F(LlamaEngineTest, ASeedIsReproducibleAndSamplingIsChecked) {
  Sampling sampling;
  sampling.temperature = 1.0F;
  sampling.seed = 7;
  const std::vector<Token> tokens = prompt(64);
  std::vector<std::vector<Token>> answers;
  for (int i = 0; i < 2; ++i) {
    engine_->keep_prefix(0, 0);
    ASSERT_TRUE(engine_->set_sampling(0, sampling, {}));
    answers.push_back(decode(0, prefill(0, tokens)));
  }
  EXPECT_EQ(answers[0], answers[1]);
  for (const Sampling& wrong :
       {Sampling{-0.1F, {}, {}, {}}, Sampling{2.1F, {}, {}, {}}, Sampling{{}, 0.0F, {}, {}},
        Sampling{{}, 1.1F, {}, {}}, Sampling{{}, {}, 0, {}}}) {
    EXPECT_EQ(engine_->set_sampling(0, wrong, {}).error().code, Code::kInvalidArgument);
  }
}

TEST_F(LlamaEngineTest, AKeptPrefixGivesWhatAFreshPromptGives) {
  const std::vector<Token> tokens = prompt(200);
  const std::vector<Token> fresh = decode(0, prefill(0, tokens));
  ASSERT_EQ(engine_->keep_prefix(0, 2 * kChunk), 2 * kChunk);
  EXPECT_EQ(decode(0, prefill(0, std::span(tokens).subspan(2 * kChunk))), fresh);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), 200 + 15U);
}

TEST_F(LlamaEngineTest, ASharedPrefixGivesWhatAFreshPromptGives) {
  const std::vector<Token> tokens = prompt(200);
  const std::vector<Token> fresh = decode(0, prefill(0, tokens));
  ASSERT_EQ(engine_->share_prefix(0, 1, 2 * kChunk), 2 * kChunk);
  EXPECT_EQ(engine_->share_prefix(1, 1, kChunk), kChunk);
  ASSERT_EQ(engine_->share_prefix(0, 1, 2 * kChunk), 2 * kChunk);
  engine_->keep_prefix(0, 0);  // The other one's cells stay.
  EXPECT_EQ(decode(1, prefill(1, std::span(tokens).subspan(2 * kChunk))), fresh);
  EXPECT_EQ(engine_->share_prefix(2, 1, 5), 0U);  // Of an empty sequence.
}

TEST_F(LlamaEngineTest, WithoutFreeCellsNothingChangesAndAllGoesOn) {
  const std::vector<Token> tokens = prompt(500);
  prefill(0, tokens);
  prefill(1, tokens);
  const std::vector<Token> more = prompt(64, "tree");
  const StepInput input{2, more, true};
  std::vector<Token> sampled;
  EXPECT_EQ(engine_->step({&input, 1}, sampled).error().code, Code::kOutOfMemory);
  EXPECT_TRUE(sampled.empty());
  EXPECT_EQ(engine_->keep_prefix(2, 9999), 0U);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), 500U);

  engine_->keep_prefix(1, 0);
  const Token after = prefill(2, more);
  engine_->keep_prefix(2, 0);
  EXPECT_EQ(prefill(2, more), after);
  EXPECT_TRUE(step(0, tokens[0]));
}

TEST_F(LlamaEngineTest, TwoSequencesInOneStepDoNotDisturbEachOther) {
  const std::vector<Token> one = prompt(64, "river");
  const std::vector<Token> two = prompt(64, "stone");
  const Token first_one = prefill(0, one);
  const Token first_two = prefill(1, two);
  const auto both = [&] {
    std::vector<Token> line;
    Token a = first_one;
    Token b = first_two;
    for (int i = 0; i < 8; ++i) {
      const std::vector<StepInput> inputs = {{0, {&a, 1}, true}, {1, {&b, 1}, true}};
      std::vector<Token> sampled;
      EXPECT_TRUE(engine_->step(inputs, sampled));
      a = sampled.at(0);
      b = sampled.at(1);
      line.insert(line.end(), sampled.begin(), sampled.end());
    }
    return line;
  };
  const std::vector<Token> together = both();
  // The same shape with other company: what sequence 0 says must not follow from it.
  engine_->keep_prefix(0, 64);
  engine_->keep_prefix(1, 0);
  prefill(1, prompt(64, "music"));
  const std::vector<Token> with_other = both();
  for (std::size_t i = 0; i < together.size(); i += 2) EXPECT_EQ(together[i], with_other[i]) << i;
}

TEST_F(LlamaEngineTest, PiecesAreTheTextAndControlTokensAreSilent) {
  const std::string text =
      "Gr\xC3\xBC\xC3\x9F"
      "e \xF0\x9F\xA6\x99 \xE6\xBC\xA2\xE5\xAD\x97";
  const std::vector<Token> tokens = engine_->tokenize({{{Role::kUser, text}}, false}).value();
  std::string shown;
  bool ends = false;
  for (Token token : tokens) {
    const std::size_t before = shown.size();
    engine_->append_piece(token, shown);
    if (engine_->ends_generation(token)) {
      ends = true;
      EXPECT_EQ(shown.size(), before);
    }
  }
  EXPECT_NE(shown.find(text), std::string::npos) << shown;
  EXPECT_EQ(shown.find("<|im_"), std::string::npos) << shown;
  EXPECT_TRUE(ends);
}

TEST_F(LlamaEngineTest, TicksInsideALongStep) {
  int ticks = 0;
  LoadOptions options = small_options();
  options.sequences_max = 1;
  const std::unique_ptr<Engine> engine = loaded(options, &ticks);
  ASSERT_NE(engine, nullptr);
  ticks = 0;
  const std::vector<Token> tokens = prompt(200);
  const StepInput input{0, tokens, true};
  std::vector<Token> sampled;
  ASSERT_TRUE(engine->step({&input, 1}, sampled));
  EXPECT_GT(ticks, 30);  // One per layer and more.
}

TEST_F(LlamaEngineTest, TheEstimateIsAnUpperBoundOfTheProcess) {
  engine_.reset();
  LoadOptions options = small_options();
  options.context_tokens = 4096;
  options.step_tokens_max = 512;
  std::unique_ptr<Engine> engine = make_llama_engine({});
  const Result<Plan> plan = engine->plan(options);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->context_tokens, 4096U);
  EXPECT_EQ(plan->context_train_tokens, 8192U);
  engine_ = loaded(options);
  const std::vector<Token> tokens = prompt(2048);
  std::vector<Token> sampled;
  for (std::size_t at = 0; at < tokens.size(); at += 512) {
    const StepInput input{0, std::span(tokens).subspan(at, 512), at + 512 == tokens.size()};
    ASSERT_TRUE(engine_->step({&input, 1}, sampled));
  }
  // No schema was compiled.
  const Bytes planned = saturating_sub(plan->estimate.total(), plan->estimate.grammars);
  const double ratio =
      static_cast<double>(planned.count()) / static_cast<double>(resident().count());
  RecordProperty("estimate_per_resident", std::to_string(ratio));
  EXPECT_GE(ratio, 1.0);
  EXPECT_LE(ratio, 1.5);
  EXPECT_EQ(engine_->kv_per_token(), Bytes(plan->estimate.kv.count() / 4096));
  EXPECT_LE(engine_->clear_cache(), 64_MiB);
  engine_.reset();
}

TEST_F(LlamaEngineTest, PlansNeverMoreThanTheTrainedWindow) {
  LoadOptions options = small_options();
  options.context_tokens = 0;
  EXPECT_EQ(engine_->plan(options)->context_tokens, 8192U);
  options.context_tokens = 99'999;
  EXPECT_EQ(engine_->plan(options)->context_tokens, 8192U);
  options.context_tokens = 1024;
  const std::uint64_t small = engine_->plan(options)->estimate.kv.count();
  options.context_tokens = 2048;
  EXPECT_EQ(engine_->plan(options)->estimate.kv.count(), 2 * small);
}

TEST_F(LlamaEngineTest, RefusesFilesThatAreNoModel) {
  std::string pattern = (std::filesystem::temp_directory_path() / "llama-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path folder = pattern;
  std::filesystem::create_directories(folder / "mlx");
  std::ofstream(folder / "mlx" / "config.json") << "{}";
  std::ofstream(folder / "mlx" / "model.safetensors") << "x";
  std::ofstream(folder / "text.gguf") << "hello";
  std::ofstream(folder / "broken.gguf") << "GGUF and then nonsense";
  {
    std::ifstream whole(model_path(), std::ios::binary);
    std::string head(8'000'000, '\0');
    whole.read(head.data(), static_cast<std::streamsize>(head.size()));
    std::ofstream(folder / "cut.gguf", std::ios::binary) << head;
  }
  LoadOptions options = small_options();
  const auto refusal = [&](const char* name) {
    options.model_path = (folder / name).string();
    const Result<Plan> plan = engine_->plan(options);
    EXPECT_FALSE(plan) << name;
    return plan ? Error() : plan.error();
  };
  EXPECT_EQ(refusal("missing.gguf").code, Code::kNotFound);
  const Error mlx = refusal("mlx");
  EXPECT_EQ(mlx.code, Code::kInvalidArgument);
  EXPECT_NE(mlx.message.find("MLX build"), std::string::npos) << mlx.message;
  for (const char* name : {".", "text.gguf", "broken.gguf", "cut.gguf"}) {
    EXPECT_EQ(refusal(name).code, Code::kInvalidArgument) << name;
  }
  options = small_options();
  options.sequences_max = 100'000;
  EXPECT_EQ(engine_->plan(options).error().code, Code::kInvalidArgument);
  std::filesystem::remove_all(folder);
}

TEST_F(LlamaEngineTest, ReleasedBuffersComeBackToTheSystemAndAreTakenAgainByTheNextStep) {
  const std::vector<Token> tokens = prompt(100);
  const std::vector<Token> before = decode(0, prefill(0, tokens));
  engine_->keep_prefix(0, 0);
  const Bytes resident_before = resident();
  const Bytes freed = engine_->release_buffers();
  EXPECT_GT(freed, 10_MiB) << "1,024 cells of SmolLM2 are 23 MB";
  EXPECT_LE(resident(), saturating_sub(resident_before, 10_MiB));
  EXPECT_EQ(engine_->share_prefix(0, 1, 0), 0U) << "bookkeeping works without buffers";
  EXPECT_EQ(decode(0, prefill(0, tokens)), before);
}

}  // namespace
}  // namespace pensieve::engine
