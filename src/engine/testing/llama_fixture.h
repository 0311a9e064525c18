// The llama engine on a small real model, through its interface. Compared are tokens that the same
// operations gave on both sides: other batch shapes round differently.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "engine/llama_engine.h"

namespace pensieve::engine {

inline constexpr std::uint32_t kChunk = 64;  // Prompts go in chunks of this size: equal shapes.

inline std::string model_path() {
  const char* const path = std::getenv("PENSIEVE_TEST_MODEL");
  return path == nullptr ? "" : path;
}

inline LoadOptions small_options() {
  LoadOptions options;
  options.model_path = model_path();
  options.context_tokens = 1024;
  options.sequences_max = 3;
  options.step_tokens_max = 256;
  return options;
}

inline std::unique_ptr<Engine> loaded(const LoadOptions& options, int* ticks = nullptr) {
  std::unique_ptr<Engine> engine = make_llama_engine([ticks] {
    if (ticks != nullptr) ++*ticks;
  });
  const Result<ModelInfo> info = engine->load(options, [](float) {});
  EXPECT_TRUE(info) << info.error().message;
  return info ? std::move(engine) : nullptr;
}

inline Bytes resident() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return Bytes(std::stoull(line.substr(6)) << 10);
  }
  ADD_FAILURE() << "no VmRSS";
  return Bytes();
}

class LlamaEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::ifstream(model_path()).good()) << "no test model: run ./dev setup";
    if (engine_ == nullptr) engine_ = loaded(small_options());
    ASSERT_NE(engine_, nullptr);
    for (SequenceId sequence = 0; sequence < 3; ++sequence) {
      EXPECT_EQ(engine_->keep_prefix(sequence, 0), 0U);
      greedy(sequence);
    }
  }
  static void TearDownTestSuite() { engine_.reset(); }

  static void greedy(SequenceId sequence) {
    Sampling sampling;
    sampling.temperature = 0.0F;
    ASSERT_TRUE(engine_->set_sampling(sequence, sampling, {}));
  }
  /// A prompt of exactly `count` tokens.
  static std::vector<Token> prompt(std::size_t count, std::string_view word = "river") {
    std::string text = "Tell me about";
    for (std::size_t i = 0; i < count; ++i) (text += ' ') += word;
    std::vector<Token> tokens =
        engine_->tokenize({{{Role::kUser, text}}, false}).value_or(std::vector<Token>());
    EXPECT_GE(tokens.size(), count);
    tokens.resize(count);
    return tokens;
  }
  /// Adds `tokens` in chunks; the token sampled after the last.
  static Token prefill(SequenceId sequence, std::span<const Token> tokens) {
    std::vector<Token> sampled;
    while (!tokens.empty()) {
      const std::size_t size = std::min<std::size_t>(kChunk, tokens.size());
      const StepInput input{sequence, tokens.first(size), size == tokens.size()};
      const Result<void> done = engine_->step({&input, 1}, sampled);
      EXPECT_TRUE(done) << done.error().message;
      if (!done) return -1;
      tokens = tokens.subspan(size);
    }
    return sampled.at(0);
  }
  static Result<Token> step(SequenceId sequence, Token token) {
    const StepInput input{sequence, {&token, 1}, true};
    std::vector<Token> sampled;
    if (Result<void> done = engine_->step({&input, 1}, sampled); !done) {
      return std::unexpected(done.error());
    }
    return sampled.at(0);
  }
  /// `first` and the tokens that follow it.
  static std::vector<Token> decode(SequenceId sequence, Token first, int count = 16) {
    std::vector<Token> tokens = {first};
    while (static_cast<int>(tokens.size()) < count) {
      const Result<Token> next = step(sequence, tokens.back());
      EXPECT_TRUE(next) << next.error().message;
      if (!next) break;
      tokens.push_back(*next);
    }
    return tokens;
  }

  static inline std::unique_ptr<Engine> engine_;
};

}  // namespace pensieve::engine
