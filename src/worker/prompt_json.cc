#include "worker/prompt_json.h"

#include <stdexcept>
#include <utility>
#include <vector>

#include "worker/payload_fields.h"

namespace pensieve::worker {
namespace {

namespace json = boost::json;
using Fields = PayloadFields;

json::array to_json(const std::vector<engine::Image>& images) {
  json::array out;
  for (const engine::Image& image : images) {
    out.push_back(json::object{{"at", image.at},
                               {"media_type", image.media_type},
                               {"base64", image.base64},
                               {"field", image.field}});
  }
  return out;
}

json::object to_json(const engine::Message& message) {
  json::array calls;
  for (const engine::ToolCall& call : message.calls) {
    calls.push_back(
        json::object{{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
  }
  json::object out{{"role", static_cast<unsigned>(message.role)},
                   {"text", message.text},
                   {"thinking", message.thinking},
                   {"calls", std::move(calls)}};
  if (message.role == engine::Role::kTool) {
    out["tool_call_id"] = message.tool_call_id;
    out["tool_name"] = message.tool_name;
  }
  if (!message.images.empty()) out["images"] = to_json(message.images);
  return out;
}

engine::Message message_from(const json::value& value) {
  const Fields fields(value);
  engine::Message message{.role = fields.enumerator("role", engine::Role::kTool),
                          .text = fields.text("text"),
                          .thinking = fields.text("thinking")};
  for (const json::value& item : fields.at("calls").as_array()) {
    const Fields call(item);
    message.calls.push_back({call.text("id"), call.text("name"), call.text("arguments")});
  }
  if (message.role == engine::Role::kTool) {
    message.tool_call_id = fields.text("tool_call_id");
    message.tool_name = fields.text("tool_name");
  }
  if (const json::value* images = fields.find("images")) {
    for (const json::value& item : images->as_array()) {
      const Fields image(item);
      const auto at = image.at("at").to_number<std::size_t>();
      if (at > message.text.size()) throw std::out_of_range("at");
      message.images.push_back(
          {at, image.text("media_type"), image.text("base64"), image.text("field")});
    }
  }
  return message;
}

}  // namespace

json::object to_json(const engine::Prompt& prompt) {
  json::array messages;
  messages.reserve(prompt.messages.size());
  for (const engine::Message& message : prompt.messages) messages.push_back(to_json(message));
  json::array tools;
  for (const engine::Tool& tool : prompt.tools) {
    tools.push_back(json::object{{"name", tool.name},
                                 {"description", tool.description},
                                 {"parameters", tool.parameters},
                                 {"shown", tool.shown}});
  }
  const engine::AnswerRules& rules = prompt.rules;
  return {{"messages", std::move(messages)},
          {"continues_last", prompt.continues_last},
          {"tools", std::move(tools)},
          {"tool_choice", static_cast<unsigned>(rules.tool_choice)},
          {"tool_name", rules.tool_name},
          {"parallel_calls", rules.parallel_calls},
          {"json_schema", rules.json_schema},
          {"thinking_tokens_max", rules.thinking_tokens_max},
          {"effort", rules.effort}};
}

engine::Prompt prompt_from(const json::value& value) {
  const Fields fields(value);
  engine::Prompt prompt;
  prompt.continues_last = fields.flag("continues_last");
  for (const json::value& item : fields.at("messages").as_array()) {
    prompt.messages.push_back(message_from(item));
  }
  for (const json::value& item : fields.at("tools").as_array()) {
    const Fields tool(item);
    prompt.tools.push_back(
        {tool.text("name"), tool.text("description"), tool.text("parameters"), tool.flag("shown")});
  }
  prompt.rules.tool_choice = fields.enumerator("tool_choice", engine::ToolChoice::kNone);
  prompt.rules.tool_name = fields.text("tool_name");
  prompt.rules.parallel_calls = fields.flag("parallel_calls");
  prompt.rules.json_schema = fields.text("json_schema");
  prompt.rules.thinking_tokens_max = fields.u32("thinking_tokens_max");
  prompt.rules.effort = fields.text("effort");
  return prompt;
}

}  // namespace pensieve::worker
