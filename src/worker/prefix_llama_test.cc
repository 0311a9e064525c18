// A conversation on a small real model that was parked or stored goes on as if it had never left
// the KV cache. Both sides go through the same shapes of batches, so the tokens must be equal.
#include <cstdlib>
#include <fstream>
#include <memory>

#include <gtest/gtest.h>

#include "engine/testing/llama.h"
#include "worker/prefix_exchange.h"
#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::SequenceId;
using engine::Token;

std::unique_ptr<engine::Engine> loaded_llama() {
  const char* const path = std::getenv("PENSIEVE_TEST_MODEL");
  engine::LoadOptions options;
  options.model_path = path == nullptr ? "" : path;
  options.context_tokens = 2048;
  options.sequences_max = 3;
  options.step_tokens_max = 256;
  std::unique_ptr<engine::Engine> llama = engine::make_llama_engine([] {});
  const auto info = llama->load(options, [](float) {});
  EXPECT_TRUE(info) << info.error().message << ": run ./dev setup";
  return info ? std::move(llama) : nullptr;
}

class PrefixLlamaTest : public PrefixStoreTest {
 protected:
  PrefixLlamaTest() : llama_(loaded_llama()) {
    parked_max_ = 256_MiB;
    stored_max_ = 512_MiB;
    open();
  }
  void open() {
    store_ = make_store(llama_->state_format(), llama_->can_go_back());
    exchange_ = std::make_unique<PrefixExchange>(*llama_, *store_, clock_);
  }

  std::vector<Token> tokens_of(std::string_view word, std::size_t count) {
    std::string text = "Tell me about";
    for (std::size_t i = 0; i < count; ++i) (text += ' ') += word;
    std::vector<Token> tokens = *llama_->tokenize({{{engine::Role::kUser, text}}, false});
    tokens.resize(count);
    return tokens;
  }
  /// Adds `tokens` in chunks and then decodes greedily; returns what was sampled.
  std::vector<Token> go_on(SequenceId sequence, std::span<const Token> tokens, int count) {
    engine::Sampling sampling;
    sampling.temperature = 0.0F;
    EXPECT_TRUE(llama_->set_sampling(sequence, sampling, {}));
    std::vector<Token> sampled;
    while (!tokens.empty()) {
      const std::size_t size = std::min<std::size_t>(64, tokens.size());
      const engine::StepInput input{sequence, tokens.first(size), size == tokens.size()};
      EXPECT_TRUE(llama_->step({&input, 1}, sampled));
      tokens = tokens.subspan(size);
    }
    while (static_cast<int>(sampled.size()) < count) {
      const Token last = sampled.back();
      const engine::StepInput input{sequence, {&last, 1}, true};
      EXPECT_TRUE(llama_->step({&input, 1}, sampled));
    }
    return sampled;
  }
  std::uint32_t restore(SequenceId sequence, const std::vector<Token>& prompt) {
    auto found = exchange_->find(prompt, 0);
    if (!found) return 0;
    const auto kept = exchange_->restore(sequence, std::move(*found));
    EXPECT_TRUE(kept) << kept.error().message;
    return kept ? *kept : 0;
  }

  std::unique_ptr<engine::Engine> llama_;
  std::unique_ptr<PrefixStore> store_;
  std::unique_ptr<PrefixExchange> exchange_;
};

TEST_F(PrefixLlamaTest, GoesOnAfterItWasParkedAsInPlace) {
  const std::vector<Token> head = tokens_of("rivers", 512);
  const std::vector<Token> tail = tokens_of("mountains", 70);
  std::vector<Token> whole = head;
  whole.insert(whole.end(), tail.begin(), tail.end());

  go_on(0, head, 1);
  ASSERT_EQ(llama_->keep_prefix(0, 512), 512U);
  const std::vector<Token> in_place = go_on(0, tail, 24);
  llama_->keep_prefix(0, 0);

  go_on(1, head, 1);
  ASSERT_TRUE(exchange_->park(1, head));
  EXPECT_GE(store_->stats().parked_bytes, llama_->state_bytes(1));
  llama_->keep_prefix(1, 0);
  ASSERT_EQ(restore(2, whole), 512U);
  EXPECT_EQ(go_on(2, tail, 24), in_place);
}

TEST_F(PrefixLlamaTest, GoesOnInAnotherProcessAfterItWasStored) {
  const std::vector<Token> head = tokens_of("rivers", 512);
  const std::vector<Token> tail = tokens_of("mountains", 70);
  std::vector<Token> whole = head;
  whole.insert(whole.end(), tail.begin(), tail.end());
  go_on(0, head, 1);
  ASSERT_TRUE(exchange_->store(0, head));
  settle(*store_);
  const std::vector<Token> in_place = go_on(0, tail, 24);

  // A fresh engine and a fresh store are what another process has.
  exchange_.reset();
  store_.reset();
  llama_ = loaded_llama();
  open();
  PrefixExchange::Search search;
  ASSERT_TRUE(exchange_->must_wait(search, whole, 0));
  settle(*store_);
  ASSERT_EQ(restore(1, whole), 512U);
  EXPECT_EQ(go_on(1, tail, 24), in_place);
}

TEST_F(PrefixLlamaTest, OnlyTheSharedPartOfAStateIsUsed) {
  const std::vector<Token> head = tokens_of("rivers", 512);
  const std::vector<Token> tail = tokens_of("mountains", 70);
  std::vector<Token> branch(head.begin(), head.begin() + 256);
  branch.insert(branch.end(), tail.begin(), tail.end());

  go_on(0, std::span(head).first(256), 1);
  const std::vector<Token> in_place = go_on(0, tail, 24);
  llama_->keep_prefix(0, 0);

  go_on(1, head, 1);
  ASSERT_TRUE(exchange_->park(1, head));
  llama_->keep_prefix(1, 0);
  ASSERT_EQ(restore(2, branch), 256U);
  EXPECT_EQ(go_on(2, tail, 24), in_place);
}

}  // namespace
}  // namespace pensieve::worker
