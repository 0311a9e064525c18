// Agents' conversations through the chat templates that come with llama.cpp, on the vocabulary of
// the test model: nothing of them is lost or refused, and most templates keep their own form.
#include "engine/llama_template.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <llama.h>

#include "engine/llama_chat.h"
#include "engine/llama_native.h"
#include "engine/testing/llama_vocabulary.h"

namespace pensieve::engine {
namespace {

Message call_turn(std::string text, std::vector<std::string> numbers) {
  Message turn{.role = Role::kAssistant, .text = std::move(text)};
  for (const std::string& number : numbers) {
    turn.calls.push_back(
        {"toolu_01A09q90qw90lq917835lq" + number, "look", R"({"path":"QUERY)" + number + "\"}"});
  }
  return turn;
}

Message result_of(const std::string& number) {
  Message result{.role = Role::kTool, .text = "RESULT" + number};
  result.tool_call_id = "toolu_01A09q90qw90lq917835lq" + number;
  result.tool_name = "look";
  return result;
}

Prompt with_tool(std::vector<Message> messages) {
  Prompt prompt{.messages = std::move(messages)};
  prompt.tools = {
      {"look", "Looks.", R"({"type":"object","properties":{"path":{"type":"string"}}})"}};
  return prompt;
}

class LlamaTemplateTest : public VocabularyTest {
 protected:
  static std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(PENSIEVE_TEST_TEMPLATES)) {
      if (entry.path().extension() == ".jinja") names.push_back(entry.path().stem());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  static std::string source_of(const std::string& name) {
    std::ifstream file(std::filesystem::path(PENSIEVE_TEST_TEMPLATES) / (name + ".jinja"));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static RenderedPrompt render(const std::string& name, const Prompt& prompt) {
    Result<RenderedPrompt> rendered = LlamaTemplate(model_, source_of(name)).render(prompt);
    EXPECT_TRUE(rendered) << name << ": " << rendered.error().message;
    return rendered ? *std::move(rendered) : RenderedPrompt();
  }
  /// That each of `orders` is one of words in all renderings.
  static void expect_in_order(const Prompt& prompt,
                              const std::vector<std::vector<std::string>>& orders) {
    std::size_t templates = 0;
    for (const std::string& name : names()) {
      const std::string text = render(name, prompt).text;
      for (const std::vector<std::string>& words : orders) {
        std::size_t at = 0;
        for (const std::string& word : words) {
          at = text.find(word, at);
          EXPECT_NE(at, std::string::npos) << name << " has no " << word << " there:\n" << text;
          if (at == std::string::npos) break;
        }
      }
      ++templates;
    }
    EXPECT_GT(templates, 50U);
  }
};

const Prompt kParallel = with_tool({{Role::kSystem, "SYSTEM"},
                                    {Role::kUser, "FIRST"},
                                    call_turn("BESIDE", {"11", "22"}),
                                    result_of("11"),
                                    result_of("22"),
                                    {Role::kSystem, "REMINDER"},
                                    {Role::kUser, "SECOND"},
                                    call_turn("", {"33"}),
                                    result_of("33"),
                                    {Role::kAssistant, "ANSWER"},
                                    {Role::kUser, "THIRD"}});

TEST_F(LlamaTemplateTest, AnAgentsLoopLosesNothingInAnyTemplate) {
  expect_in_order(kParallel, {{"SYSTEM", "FIRST", "BESIDE", "QUERY11", "RESULT11", "RESULT22",
                               "REMINDER", "SECOND", "QUERY33", "RESULT33", "ANSWER", "THIRD"},
                              {"QUERY11", "QUERY22", "RESULT22"}});
}

TEST_F(LlamaTemplateTest, SystemMessagesStandWhereTheyWereSent) {
  expect_in_order({{{Role::kSystem, "SYSTEM"},
                    {Role::kUser, "FIRST"},
                    {Role::kSystem, "LATE"},
                    {Role::kAssistant, "ANSWER"},
                    {Role::kUser, "SECOND"},
                    {Role::kSystem, "LAST"}}},
                  {{"SYSTEM", "FIRST", "LATE", "ANSWER", "SECOND", "LAST"}});
}

TEST_F(LlamaTemplateTest, TemplatesThatKnowCallsKeepTheirOwnFormInAnAgentsLoop) {
  for (const char* const name :
       {"mistralai-Mistral-Nemo-Instruct-2407", "Mistral-Small-3.2-24B-Instruct-2506",
        "mistralai-Ministral-3-14B-Reasoning-2512", "meta-llama-Llama-3.1-8B-Instruct",
        "meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct",
        "openai-gpt-oss-120b", "GigaChat3-10B-A1.8B", "Qwen3-Coder", "GLM-4.6", "Qwen3.5-4B",
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"}) {
    EXPECT_FALSE(render(name, kParallel).tools_as_text) << name;
  }
}

TEST_F(LlamaTemplateTest, ANumberThatNoDoubleHoldsIsNoReasonToRefuse) {
  Prompt prompt = with_tool(
      {{Role::kUser, "FIRST"}, call_turn("", {"11"}), result_of("11"), {Role::kUser, "SECOND"}});
  prompt.messages[1].calls[0].arguments = R"({"path":"QUERY11","size":[1e400,-1e400]})";
  prompt.tools[0].parameters =
      R"({"type":"object","properties":{"path":{"type":"string"},"size":{"maximum":1e400}}})";
  for (const std::string& name : names()) {
    const auto chat = LlamaChat::create(model_, source_of(name));
    ASSERT_TRUE(chat) << name;
    const Result<std::string> text = (*chat)->render(prompt);
    EXPECT_TRUE(text) << name << text.error().message;
    const Result<Prepared> prepared = (*chat)->prepare(prompt, 8192);
    EXPECT_TRUE(prepared) << name << prepared.error().message;
  }
  for (const char* const name : {"Qwen3-Coder", "Qwen-Qwen2.5-7B-Instruct"}) {
    EXPECT_FALSE(render(name, prompt).tools_as_text) << name;
  }
}

TEST_F(LlamaTemplateTest, WhatATemplateCannotShowIsShownAsText) {
  // Mistral's wants a result behind each call, and this user went on without one.
  const Prompt pending =
      with_tool({{Role::kUser, "FIRST"}, call_turn("", {"11", "22"}), {Role::kUser, "SECOND"}});
  const RenderedPrompt rendered = render("mistralai-Mistral-Nemo-Instruct-2407", pending);
  EXPECT_TRUE(rendered.tools_as_text);
  EXPECT_NE(rendered.text.find("<tool_call>\n{\"name\":\"look\""), std::string::npos);
}

TEST_F(LlamaTemplateTest, NoTemplateLosesTheTextOfATurnThatHasThoughts) {
  Prompt prompt = with_tool({{Role::kUser, "FIRST"},
                             {.role = Role::kAssistant, .text = "ANSWER", .thinking = "THOUGHT1"},
                             {Role::kUser, "SECOND"},
                             call_turn("", {"11"}),
                             result_of("11"),
                             {.role = Role::kAssistant, .text = "AFTER", .thinking = "THOUGHT3"},
                             {Role::kUser, "THIRD"}});
  prompt.messages[3].thinking = "THOUGHT2";
  for (const std::uint32_t tokens : {0U, 100U}) {
    prompt.rules.thinking_tokens_max = tokens;
    expect_in_order(prompt,
                    {{"FIRST", "ANSWER", "SECOND", "QUERY11", "RESULT11", "AFTER", "THIRD"}});
  }
}

TEST_F(LlamaTemplateTest, ThoughtsOfEarlierTurnsStayWhereTheModelWroteThem) {
  for (const char* const name :
       {"Qwen-Qwen3-0.6B", "Qwen3.5-4B", "MiniMax-M2", "HuggingFaceTB-SmolLM3-3B", "Qwen-QwQ-32B",
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"}) {
    const LlamaTemplate made(model_, source_of(name));
    Prompt asked{.messages = {{Role::kUser, "FIRST"}}};
    asked.rules.thinking_tokens_max = 100;
    std::string turn = made.render(asked)->text;
    Prompt prompt = asked;
    prompt.messages.push_back({.role = Role::kAssistant, .text = "ANSWER", .thinking = "THOUGHT"});
    prompt.messages.push_back({Role::kUser, "SECOND"});
    const std::string text = made.render(prompt)->text;
    const std::string thoughts =
        made.thinking().begin + "\nTHOUGHT\n" + made.thinking().end + "\n\nANSWER";
    const std::size_t opened = turn.find_last_not_of('\n') + 1;  // Behind "<think>", it may be.
    if (std::string_view(turn).substr(0, opened).ends_with(made.thinking().begin)) {
      turn.erase(opened - made.thinking().begin.size());
    }
    EXPECT_TRUE(text.starts_with(turn + thoughts)) << name << ":\n" << text;
  }
}

TEST_F(LlamaTemplateTest, ThoughtsInFrontOfACallStayAsTheModelWroteThem) {
  Prompt prompt = with_tool({{Role::kUser, "FIRST"}, call_turn("", {"11"}), result_of("11")});
  prompt.messages[1].thinking = "THOUGHT";
  prompt.rules.thinking_tokens_max = 100;
  for (const char* const name :
       {"Qwen-Qwen3-0.6B", "Qwen3.5-4B", "HuggingFaceTB-SmolLM3-3B", "Qwen-QwQ-32B"}) {
    const std::string text = render(name, prompt).text;
    EXPECT_NE(text.find("assistant\n<think>\nTHOUGHT\n</think>\n\n<tool_call>\n"),
              std::string::npos)
        << name << ":\n"
        << text;
  }
  // It ends the turn between text and call.
  EXPECT_FALSE(LlamaTemplate(model_, source_of("google-gemma-4-31B-it")).needs().text_thoughts);
}

TEST_F(LlamaTemplateTest, AnExoticSchemaIsNoReasonToRefuse) {
  const std::vector<std::string> schemas = {
      R"({"type":"object","properties":{"path":true}})",
      R"({"type":"object","properties":{"path":{"type":"array","items":true}}})",
      R"({"type":"object","properties":{"path":{"$ref":"#"}}})",
      R"({"type":"object","properties":{"path":{"$ref":"https://example.com/a.json"}}})",
      R"({"type":"object","properties":{"path":{"type":"any"}}})",
      R"({"type":"object","properties":{"path":{"enum":[]}}})",
      R"({"type":"object","properties":{"path":{"$ref":"#/$defs/missing"}},"required":["path"]})"};
  for (const std::string& name : names()) {
    const auto chat = LlamaChat::create(model_, source_of(name));
    ASSERT_TRUE(chat) << name;
    for (const std::string& schema : schemas) {
      Prompt prompt = with_tool({{Role::kUser, "FIRST"}});
      prompt.tools.push_back({"exotic", "", schema});
      const Result<std::string> text = (*chat)->render(prompt);
      ASSERT_TRUE(text) << name << schema << text.error().message;
      const Result<Prepared> prepared = (*chat)->prepare(prompt, 8192);
      ASSERT_TRUE(prepared) << name << schema << prepared.error().message;
      if (!prepared->shape) continue;
      EXPECT_NE(follow(prepared->shape, llama_model_get_vocab(model_)), nullptr) << name << schema;
    }
  }
}

}  // namespace
}  // namespace pensieve::engine
