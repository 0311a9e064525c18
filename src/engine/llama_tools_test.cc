// Tools through the chat templates that come with llama.cpp, on the vocabulary of the test model.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <llama.h>

#include "engine/llama_chat.h"
#include "engine/llama_native.h"
#include "engine/testing/llama_vocabulary.h"

namespace pensieve::engine {
namespace {

using Kind = AnswerPiece::Kind;

class LlamaToolsTest : public VocabularyTest {
 protected:
  void SetUp() override {
    VocabularyTest::SetUp();
    templates_ = PENSIEVE_TEST_TEMPLATES;
  }

  static std::string source_of(const std::filesystem::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  std::unique_ptr<LlamaChat> chat(const std::string& name) const {
    Result<std::unique_ptr<LlamaChat>> made =
        LlamaChat::create(model_, source_of(templates_ / name));
    EXPECT_TRUE(made) << made.error().message;
    return *std::move(made);
  }
  static Prompt forced_call() {
    Prompt prompt{.messages = {{Role::kUser, "What is the weather in Oslo?"}}};
    prompt.tools = {{"get_weather", "The weather in a city",
                     R"({"type":"object","properties":{"city":{"type":"string"}},)"
                     R"("required":["city"]})"}};
    prompt.rules.tool_choice = ToolChoice::kAny;
    return prompt;
  }
  /// How many bytes of `text`, token by token, a shape takes, and whether the answer may end there.
  struct Taken {
    std::size_t bytes = 0;
    bool may_end = false;
  };
  static Taken take(std::shared_ptr<const AnswerShape> shape, const std::string& text) {
    const llama_vocab* const vocab = llama_model_get_vocab(model_);
    const auto follower = follow(std::move(shape), vocab);
    EXPECT_NE(follower, nullptr);
    const auto allows = [&](Token token) {
      std::vector<float> logits(static_cast<std::size_t>(llama_vocab_n_tokens(vocab)), 1.0F);
      follower->mask(logits);
      return std::isfinite(logits[static_cast<std::size_t>(token)]);
    };
    Taken taken;
    for (const char c : text) {
      Token token = 0;
      EXPECT_EQ(llama_tokenize(vocab, &c, 1, &token, 1, false, false), 1);
      if (!allows(token)) return taken;
      EXPECT_TRUE(follower->accept(token));
      ++taken.bytes;
    }
    taken.may_end = allows(llama_vocab_eos(vocab));
    return taken;
  }

  std::filesystem::path templates_;
};

TEST_F(LlamaToolsTest, EveryTemplateOfTheEngineTakesAForcedCall) {
  std::size_t templates = 0;
  for (const auto& entry : std::filesystem::directory_iterator(templates_)) {
    if (entry.path().extension() != ".jinja") continue;
    const auto made = LlamaChat::create(model_, source_of(entry.path()));
    ASSERT_TRUE(made) << entry.path() << made.error().message;
    Result<Prepared> prepared = (*made)->prepare(forced_call(), 8192);
    ASSERT_TRUE(prepared) << entry.path() << prepared.error().message;
    ASSERT_NE(prepared->shape, nullptr) << entry.path();
    EXPECT_NE(follow(prepared->shape, llama_model_get_vocab(model_)), nullptr) << entry.path();
    EXPECT_EQ(take(prepared->shape, "Hello there").bytes, 0U) << entry.path();
    ++templates;
  }
  EXPECT_GT(templates, 50U);
}

TEST_F(LlamaToolsTest, ACallThatMustComeIsOursAndTheOnlyOne) {
  const std::string call =
      "<tool_call>\n{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Oslo\"}}\n"
      "</tool_call>";
  for (const char* const name :
       {"meta-llama-Llama-3.1-8B-Instruct.jinja", "mistralai-Mistral-Nemo-Instruct-2407.jinja",
        "Qwen3-Coder.jinja", "openai-gpt-oss-120b.jinja"}) {
    const Result<Prepared> prepared = chat(name)->prepare(forced_call(), 8192);
    ASSERT_TRUE(prepared) << name;
    EXPECT_EQ(prepared->parser, nullptr) << name;
    EXPECT_TRUE(prepared->keeps_calls) << name;
    EXPECT_EQ(take(prepared->shape, call + "Sure").bytes, call.size()) << name;
    EXPECT_TRUE(take(prepared->shape, call).may_end) << name;
  }
}

TEST_F(LlamaToolsTest, ACallInTheTemplatesOwnFormIsEnforcedAndRead) {
  const auto llama = chat("mistralai-Mistral-Nemo-Instruct-2407.jinja");
  Prompt prompt = forced_call();
  prompt.rules.tool_choice = ToolChoice::kAuto;
  Result<Prepared> prepared = llama->prepare(prompt, 8192);
  ASSERT_TRUE(prepared);
  const std::string begin = R"([TOOL_CALLS][{"name": "get_)";
  const std::string call =
      begin + R"(weather", "arguments": {"city": "Oslo"}, "id": "abc012345"}])";
  EXPECT_EQ(take(prepared->shape, call).bytes, call.size());
  EXPECT_TRUE(take(prepared->shape, call).may_end);
  EXPECT_EQ(take(prepared->shape, begin + "time").bytes, begin.size());

  ASSERT_NE(prepared->parser, nullptr);
  std::vector<AnswerPiece> pieces;
  for (const char c : call) prepared->parser->push(std::string(1, c), pieces);
  prepared->parser->finish(pieces);
  std::string input;
  for (const AnswerPiece& piece : pieces) {
    if (piece.kind == Kind::kCallInput) input += piece.text;
  }
  ASSERT_FALSE(pieces.empty());
  EXPECT_EQ(pieces.front(), (AnswerPiece{Kind::kCallStart, "get_weather"}));
  EXPECT_EQ(pieces.back().kind, Kind::kCallEnd);
  EXPECT_EQ(input, R"({"city": "Oslo"})");
}

TEST_F(LlamaToolsTest, ATemplateWithoutToolsGetsTheOfferAsText) {
  const auto phi = chat("microsoft-Phi-3.5-mini-instruct.jinja");
  const Result<std::string> text = phi->render(forced_call());
  ASSERT_TRUE(text);
  EXPECT_NE(text->find("\"name\":\"get_weather\""), std::string::npos);
  const Result<Prepared> prepared = phi->prepare(forced_call(), 8192);
  ASSERT_TRUE(prepared);
  const std::string call =
      "<tool_call>\n{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Oslo\"}}\n</tool_call>";
  EXPECT_EQ(take(prepared->shape, call).bytes, call.size());
  EXPECT_TRUE(take(prepared->shape, call).may_end);
}

TEST_F(LlamaToolsTest, ABudgetEndsTheThoughtsAndTheAnswerKeepsItsShape) {
  const auto qwen = chat("Qwen-Qwen3-0.6B.jinja");
  Prompt prompt = forced_call();
  prompt.rules.thinking_tokens_max = 4;
  const Result<Prepared> prepared = qwen->prepare(prompt, 8192);
  ASSERT_TRUE(prepared);
  ASSERT_TRUE(prepared->thinking);
  EXPECT_EQ(prepared->thinking->begin, "<think>");
  EXPECT_EQ(prepared->thinking->end, "</think>");
  EXPECT_FALSE(prepared->thinking->opened);

  const llama_vocab* const vocab = llama_model_get_vocab(model_);
  const auto follower = follow(prepared->shape, vocab);
  const auto say = [&](const std::string& text) {
    std::size_t said = 0;
    for (const Token token : tokens_as_written(vocab, text)) said += follower->accept(token);
    return said == tokens_as_written(vocab, text).size();
  };
  const auto forced = [&] {
    std::vector<float> logits(static_cast<std::size_t>(llama_vocab_n_tokens(vocab)), 1.0F);
    follower->mask(logits);
    std::vector<Token> tokens;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (std::isfinite(logits[i])) tokens.push_back(static_cast<Token>(i));
    }
    return tokens;
  };
  EXPECT_TRUE(say("<think>"));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(say("a"));
  std::string closing;
  for (std::vector<Token> next = forced(); next.size() == 1; next = forced()) {
    append_piece(vocab, next[0], true, closing);
    ASSERT_TRUE(follower->accept(next[0]));
  }
  EXPECT_TRUE(closing.starts_with("\n</think>")) << closing;
  EXPECT_FALSE(say("Hello"));
  EXPECT_TRUE(say("<tool_call>"));
}

TEST_F(LlamaToolsTest, ATemplateThatEndsTheThoughtsLeavesNoneToRead) {
  const auto qwen = chat("Qwen-Qwen3-0.6B.jinja");
  const Result<Prepared> prepared = qwen->prepare(forced_call(), 8192);
  ASSERT_TRUE(prepared);
  EXPECT_FALSE(prepared->thinking);
}

TEST_F(LlamaToolsTest, ATemplateTellsWhetherItsModelThinks) {
  EXPECT_TRUE(chat("Qwen-Qwen3-0.6B.jinja")->can_think());
  EXPECT_TRUE(chat("Qwen-QwQ-32B.jinja")->can_think());
  EXPECT_FALSE(chat("microsoft-Phi-3.5-mini-instruct.jinja")->can_think());
}

TEST_F(LlamaToolsTest, ThoughtsThatTheTemplateOpensAreKnownToBeOpen) {
  const auto qwq = chat("Qwen-QwQ-32B.jinja");
  Prompt prompt{.messages = {{Role::kUser, "Hello"}}};
  prompt.rules.thinking_tokens_max = 100;
  const Result<Prepared> prepared = qwq->prepare(prompt, 8192);
  ASSERT_TRUE(prepared);
  ASSERT_TRUE(prepared->thinking);
  EXPECT_TRUE(prepared->thinking->opened);
}

TEST_F(LlamaToolsTest, EveryTemplateOfTheEngineTakesThinkingAndOldThoughts) {
  for (const auto& entry : std::filesystem::directory_iterator(templates_)) {
    if (entry.path().extension() != ".jinja") continue;
    const auto made = LlamaChat::create(model_, source_of(entry.path()));
    ASSERT_TRUE(made) << entry.path();
    Prompt prompt{.messages = {{Role::kUser, "a"}}};
    prompt.messages.push_back({.role = Role::kAssistant, .text = "b", .thinking = "c"});
    prompt.messages.push_back({Role::kUser, "d"});
    prompt.rules.thinking_tokens_max = 2000;
    prompt.rules.effort = "low";
    const Result<Prepared> prepared = (*made)->prepare(prompt, 8192);
    ASSERT_TRUE(prepared) << entry.path() << prepared.error().message;
    if (!prepared->shape) continue;
    EXPECT_NE(follow(prepared->shape, llama_model_get_vocab(model_)), nullptr) << entry.path();
  }
}

}  // namespace
}  // namespace pensieve::engine
