// Renders conversations as the worker does, for test_templates.py: template_render MODEL reads one
// JSON object a line, {"template": TEXT, "messages": [{"role", "content"}]}, and answers with
// {"forms": [messages...], "rendered": TEXT} or {"forms", "error": TEXT}. Only the vocabulary of
// MODEL is loaded.
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include <llama.h>
#include <boost/json.hpp>

#include "engine/llama_chat.h"
#include "engine/llama_plan.h"
#include "engine/prompt_forms.h"

namespace {

namespace json = boost::json;
using pensieve::engine::LlamaChat;
using pensieve::engine::Message;
using pensieve::engine::Prompt;
using pensieve::engine::Role;

Prompt prompt_of(const json::array& messages) {
  Prompt prompt;
  for (const json::value& message : messages) {
    const json::string& role = message.at("role").as_string();
    Message& added = prompt.messages.emplace_back();
    added.role = role == "system" ? Role::kSystem : role == "user" ? Role::kUser : Role::kAssistant;
    added.text = message.at("content").as_string();
  }
  return prompt;
}

json::array messages_of(const Prompt& prompt) {
  json::array messages;
  for (const Message& message : prompt.messages) {
    const char* const role = message.role == Role::kSystem ? "system"
                             : message.role == Role::kUser ? "user"
                                                           : "assistant";
    messages.push_back(json::object{{"role", role}, {"content", message.text}});
  }
  return messages;
}

json::object answer_to(const llama_model* model, const json::value& asked) {
  const Prompt prompt = prompt_of(asked.at("messages").as_array());
  json::object answer;
  json::array& forms = answer["forms"].emplace_array();
  for (const Prompt& form : pensieve::engine::prompt_forms(prompt)) {
    forms.push_back(messages_of(form));
  }
  const auto chat = LlamaChat::create(model, std::string(asked.at("template").as_string()));
  if (!chat) {
    answer["error"] = chat.error().message;
    return answer;
  }
  if (const auto rendered = (*chat)->render(prompt)) {
    answer["rendered"] = *rendered;
  } else {
    answer["error"] = rendered.error().message;
  }
  return answer;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: template_render MODEL <LINES\n", stderr);
    return 2;
  }
  pensieve::engine::start_llama();
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
      llama_model_load_from_file(argv[1], params), &llama_model_free);
  if (!model) return 1;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << json::serialize(answer_to(model.get(), json::parse(line))) << std::endl;
  }
  return 0;
}
