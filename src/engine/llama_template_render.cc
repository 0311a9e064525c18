// Renders conversations as the worker does, for test_templates.py: template_render MODEL reads one
// JSON object a line, {"template": TEXT, "messages": [...], "tools": [...]}, and answers with
// {"rendered": TEXT, "as_text": whether calls are shown as text} or {"error": TEXT}, and with the
// forms of the conversation that may be tried: "forms", and "text_forms" for templates without
// tools. Only the vocabulary of MODEL is loaded.
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <llama.h>
#include <boost/json.hpp>

#include "engine/llama_chat.h"
#include "engine/llama_plan.h"
#include "engine/llama_template.h"
#include "engine/prompt_forms.h"
#include "engine/tool_text.h"

namespace {

namespace json = boost::json;
using pensieve::engine::LlamaTemplate;
using pensieve::engine::Message;
using pensieve::engine::Prompt;
using pensieve::engine::Role;
using pensieve::engine::TemplateNeeds;
using pensieve::engine::ToolCall;

Role role_of(const json::string& name) {
  if (name == "system") return Role::kSystem;
  if (name == "user") return Role::kUser;
  return name == "tool" ? Role::kTool : Role::kAssistant;
}

std::string text_at(const json::value& object, std::string_view key) {
  const json::value* const text = object.as_object().if_contains(key);
  return text == nullptr ? std::string() : std::string(text->as_string());
}

Prompt prompt_of(const json::value& asked) {
  Prompt prompt;
  for (const json::value& message : asked.at("messages").as_array()) {
    Message& added = prompt.messages.emplace_back();
    added.role = role_of(message.at("role").as_string());
    added.text = text_at(message, "content");
    added.tool_call_id = text_at(message, "tool_call_id");
    added.tool_name = text_at(message, "name");
    const json::value* const calls = message.as_object().if_contains("calls");
    if (calls == nullptr) continue;
    for (const json::value& call : calls->as_array()) {
      added.calls.push_back(
          {text_at(call, "id"), text_at(call, "name"), json::serialize(call.at("arguments"))});
    }
  }
  for (const json::value& tool : asked.at("tools").as_array()) {
    prompt.tools.push_back({text_at(tool, "name"), text_at(tool, "description"),
                            json::serialize(tool.at("parameters"))});
  }
  return prompt;
}

json::array messages_of(const Prompt& prompt) {
  json::array messages;
  for (const Message& message : prompt.messages) {
    json::object shown{{"role", pensieve::engine::role_name(message.role)},
                       {"content", message.text}};
    if (message.role == Role::kTool) {
      shown["tool_call_id"] = message.tool_call_id;
      shown["name"] = message.tool_name;
    }
    for (const ToolCall& call : message.calls) {
      json::object one{
          {"id", call.id}, {"name", call.name}, {"arguments", json::parse(call.arguments)}};
      if (!shown.contains("calls")) shown["calls"].emplace_array();
      shown["calls"].as_array().push_back(std::move(one));
    }
    messages.push_back(std::move(shown));
  }
  return messages;
}

json::array forms_of(const Prompt& prompt, const TemplateNeeds& needs) {
  json::array forms;
  for (const Prompt& form : pensieve::engine::prompt_forms(prompt, needs)) {
    forms.push_back(messages_of(form));
  }
  return forms;
}

json::object answer_to(const llama_model* model, const json::value& asked) {
  const Prompt prompt = prompt_of(asked);
  json::object answer;
  answer["text_forms"] = forms_of(pensieve::engine::with_tools_as_text(prompt), {});
  try {
    const LlamaTemplate chat_template(model, text_at(asked, "template"));
    answer["forms"] = forms_of(prompt, chat_template.needs());
    if (const auto rendered = chat_template.render(prompt)) {
      answer["rendered"] = rendered->text;
      answer["as_text"] = rendered->tools_as_text;
    } else {
      answer["error"] = rendered.error().message;
    }
  } catch (const std::exception& error) {
    answer["error"] = error.what();
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
