#include "api/chat_request.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "api/json.h"
#include "api/raw_json.h"
#include "base/error.h"

namespace pensieve::api {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

/// The body of POST /v1/messages that says the same, as text: one parser decides what a
/// conversation means, and what a model will see keeps its bytes.
using Text = std::expected<std::string, Refusal>;

constexpr std::size_t kStopsMax = 64;
constexpr std::size_t kStopBytesMax = 1024;
constexpr std::string_view kNoParameters = R"({"type":"object","properties":{}})";

std::string_view view(const boost::json::string& text) {
  return {text.data(), text.size()};
}

/// "text" as a block.
std::string text_block(std::string_view text) {
  std::string out = R"({"type":"text","text":)";
  append_json(out, text);
  return out + '}';
}

/// The media type and data of "data:image/png;base64,AAAA"; nothing of another address.
std::string image_block(std::string_view url) {
  const std::size_t comma = url.find(";base64,");
  if (!url.starts_with("data:") || comma == std::string_view::npos) {
    std::string out = R"({"type":"image","source":{"type":"url","url":)";
    append_json(out, url);
    return out + "}}";
  }
  std::string out = R"({"type":"image","source":{"type":"base64","media_type":)";
  append_json(out, url.substr(5, comma - 5));
  out += R"(,"data":)";
  append_json(out, url.substr(comma + 8));
  return out + "}}";
}

Text content_part(const value& part) {
  const object* members = part.if_object();
  if (members == nullptr) return refuse("", "Input should be an object");
  const auto type = require_string(*members, "type");
  if (!type) return std::unexpected(type.error());
  if (*type == "text" || *type == "refusal") {
    const auto text = require_string(*members, *type);
    if (!text) return std::unexpected(text.error());
    return text_block(*text);
  }
  if (*type == "image_url") {
    const value* image = find(*members, "image_url");
    const object* address = image != nullptr ? image->if_object() : nullptr;
    if (address == nullptr) return refuse("image_url", "Input should be an object");
    const auto url = require_string(*address, "url");
    if (!url) return std::unexpected(within("image_url", url.error()));
    return image_block(*url);
  }
  return refuse("type", fmt::format("this server does not support \"{}\"", *type));
}

/// The blocks of a content, separated by commas; empty for null and for an empty string.
Text content_blocks(const object& message) {
  const value* content = find(message, "content");
  if (content == nullptr) return std::string();
  if (const boost::json::string* text = content->if_string()) {
    return text->empty() ? std::string() : text_block(view(*text));
  }
  const array* parts = content->if_array();
  if (parts == nullptr) return refuse("content", "Input should be a string or a list");
  std::string blocks;
  for (std::size_t i = 0; i < parts->size(); ++i) {
    auto block = content_part((*parts)[i]);
    if (!block) return std::unexpected(within("content", within(i, block.error())));
    if (i > 0) blocks += ',';
    blocks += *block;
  }
  return blocks;
}

/// Arguments are text that should be JSON, and need not be: an answer that was cut off has a part
/// of it. That must not end the conversation, so it stands in an object, under the name that
/// Anthropic's documentation gives it.
std::string input_of(std::string_view arguments) {
  if (arguments.find_first_not_of(" \t\r\n") == std::string_view::npos) return "{}";
  const auto parsed = parse_json(arguments);
  if (parsed && parsed->is_object()) return std::string(arguments);
  std::string wrapped = R"({"INVALID_JSON":)";
  append_json(wrapped, arguments);
  return wrapped + '}';
}

Text call_block(const value& call) {
  const object* members = call.if_object();
  if (members == nullptr) return refuse("", "Input should be an object");
  const auto id = require_string(*members, "id");
  if (!id) return std::unexpected(id.error());
  const value* field = find(*members, "function");
  const object* function = field != nullptr ? field->if_object() : nullptr;
  if (function == nullptr) return refuse("function", "Input should be an object");
  const auto name = require_string(*function, "name");
  if (!name) return std::unexpected(within("function", name.error()));
  const auto arguments = require_string(*function, "arguments");
  if (!arguments) return std::unexpected(within("function", arguments.error()));
  std::string out = R"({"type":"tool_use","id":)";
  append_json(out, *id);
  out += R"(,"name":)";
  append_json(out, *name);
  out += R"(,"input":)";
  out += input_of(*arguments);
  return out + '}';
}

Text call_blocks(const object& message) {
  const value* calls = find(message, "tool_calls");
  if (calls == nullptr) return std::string();
  const array* list = calls->if_array();
  if (list == nullptr) return refuse("tool_calls", "Input should be a valid list");
  std::string blocks;
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto block = call_block((*list)[i]);
    if (!block) return std::unexpected(within("tool_calls", within(i, block.error())));
    if (i > 0) blocks += ',';
    blocks += *block;
  }
  return blocks;
}

/// The thoughts that came with an answer, where the client sends them back.
std::string thinking_block(const object& message) {
  const value* thoughts = find(message, "reasoning_content");
  if (thoughts == nullptr || !thoughts->is_string() || thoughts->get_string().empty()) return {};
  std::string out = R"({"type":"thinking","thinking":)";
  append_json(out, view(thoughts->get_string()));
  return out + '}';
}

std::string message_text(std::string_view role, std::string_view blocks) {
  return fmt::format(R"({{"role":"{}","content":[{}]}})", role, blocks);
}

Text tool_message(const object& message, std::string_view blocks) {
  const auto id = require_string(message, "tool_call_id");
  if (!id) return std::unexpected(id.error());
  std::string out = R"({"type":"tool_result","tool_use_id":)";
  append_json(out, *id);
  out += R"(,"content":[)";
  out += blocks;
  out += "]}";
  return message_text("user", out);
}

Text message_of(const value& item) {
  const object* message = item.if_object();
  if (message == nullptr) return refuse("", "Input should be an object");
  const auto role = require_string(*message, "role");
  if (!role) return std::unexpected(role.error());
  auto blocks = content_blocks(*message);
  if (!blocks) return blocks;
  if (*role == "tool") return tool_message(*message, *blocks);
  if (*role == "system" || *role == "developer") return message_text("system", *blocks);
  if (*role == "user") return message_text("user", *blocks);
  if (*role != "assistant") {
    return refuse("role", "Input should be 'system', 'developer', 'user', 'assistant' or 'tool'");
  }
  const auto calls = call_blocks(*message);
  if (!calls) return calls;
  std::string all = thinking_block(*message);
  for (const std::string_view some : {std::string_view(*blocks), std::string_view(*calls)}) {
    if (!all.empty() && !some.empty()) all += ',';
    all += some;
  }
  return message_text("assistant", all);
}

Text messages_of(const object& body) {
  const auto field = require(body, "messages");
  if (!field) return std::unexpected(field.error());
  const array* list = (*field)->if_array();
  if (list == nullptr) return refuse("messages", "Input should be a valid list");
  std::string out = "[";
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto message = message_of((*list)[i]);
    if (!message) return std::unexpected(within("messages", within(i, message.error())));
    if (i > 0) out += ',';
    out += *message;
  }
  return out + "]";
}

/// Of a tool or a choice of tools: this server knows functions only.
std::expected<void, Refusal> check_function(const object& members) {
  const value* type = find(members, "type");
  if (type == nullptr || *type == "function") return {};
  const boost::json::string* name = type->if_string();
  if (name == nullptr) return refuse("type", "Input should be a valid string");
  return refuse("type",
                fmt::format("this server does not support \"{}\", only \"function\"", view(*name)));
}

Text tool_of(const value& item, std::string_view raw) {
  const object* tool = item.if_object();
  if (tool == nullptr) return refuse("", "Input should be an object");
  if (auto type = check_function(*tool); !type) return std::unexpected(type.error());
  const value* field = find(*tool, "function");
  const object* function = field != nullptr ? field->if_object() : nullptr;
  if (function == nullptr) return refuse("function", "Input should be an object");
  const auto name = require_string(*function, "name");
  if (!name) return std::unexpected(within("function", name.error()));
  const std::string_view raw_function = raw_member(raw, "function");
  std::string out = R"({"name":)";
  append_json(out, *name);
  if (find(*function, "description") != nullptr) {
    out += R"(,"description":)";
    out += raw_member(raw_function, "description");
  }
  const bool has_parameters = find(*function, "parameters") != nullptr;
  out += R"(,"input_schema":)";
  out += has_parameters ? raw_member(raw_function, "parameters") : kNoParameters;
  return out + '}';
}

Text tools_of(const object& body, std::string_view raw) {
  const value* field = find(body, "tools");
  if (field == nullptr) return std::string();
  const array* list = field->if_array();
  if (list == nullptr) return refuse("tools", "Input should be a valid list");
  const std::vector<std::string_view> raws = raw_elements(raw_member(raw, "tools"));
  PENSIEVE_CHECK(raws.size() == list->size());
  std::string out;
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto tool = tool_of((*list)[i], raws[i]);
    if (!tool) return std::unexpected(within("tools", within(i, tool.error())));
    if (i > 0) out += ',';
    out += *tool;
  }
  return out;
}

/// "auto", "required" and so on as the type of /v1/messages, with a name where one is named.
Text choice_type(const value& choice) {
  if (const boost::json::string* word = choice.if_string()) {
    if (*word == "none" || *word == "auto") return fmt::format(R"("type":"{}")", view(*word));
    if (*word == "required") return std::string(R"("type":"any")");
    return refuse("tool_choice", "Input should be 'none', 'auto', 'required' or a function");
  }
  const object* named = choice.if_object();
  if (named != nullptr) {
    const auto type = check_function(*named);
    if (!type) return std::unexpected(within("tool_choice", type.error()));
  }
  const value* field = named != nullptr ? find(*named, "function") : nullptr;
  const object* function = field != nullptr ? field->if_object() : nullptr;
  if (function == nullptr) return refuse("tool_choice.function", "Input should be an object");
  const auto name = require_string(*function, "name");
  if (!name) return std::unexpected(within("tool_choice", within("function", name.error())));
  std::string out = R"("type":"tool","name":)";
  append_json(out, *name);
  return out;
}

Text tool_choice_of(const object& body) {
  const value* choice = find(body, "tool_choice");
  const value* parallel = find(body, "parallel_tool_calls");
  const bool one_at_a_time = parallel != nullptr && parallel->is_bool() && !parallel->get_bool();
  if (choice == nullptr && !one_at_a_time) return std::string();
  Text type = choice != nullptr ? choice_type(*choice) : Text(R"("type":"auto")");
  if (!type) return type;
  const bool says_none = choice != nullptr && *choice == "none";
  const bool disables = one_at_a_time && !says_none;
  return fmt::format("{{{}{}}}", *type, disables ? R"(,"disable_parallel_tool_use":true)" : "");
}

/// The schema that the whole answer must follow; empty for free text.
Text schema_of(const object& body, std::string_view raw) {
  const value* field = find(body, "response_format");
  if (field == nullptr) return std::string();
  const object* format = field->if_object();
  if (format == nullptr) return refuse("response_format", "Input should be an object");
  const auto type = require_string(*format, "type");
  if (!type) return std::unexpected(within("response_format", type.error()));
  if (*type == "text") return std::string();
  if (*type == "json_object") return std::string(R"({"type":"object"})");
  if (*type != "json_schema") {
    return refuse("response_format.type", "Input should be 'text', 'json_object' or 'json_schema'");
  }
  const value* wrapper = find(*format, "json_schema");
  const object* members = wrapper != nullptr ? wrapper->if_object() : nullptr;
  if (members == nullptr || find(*members, "schema") == nullptr) {
    return refuse("response_format.json_schema.schema", "Field required");
  }
  const std::string_view raw_format = raw_member(raw, "response_format");
  return std::string(raw_member(raw_member(raw_format, "json_schema"), "schema"));
}

std::expected<std::vector<std::string>, Refusal> stops_of(const object& body) {
  std::vector<std::string> stops;
  const value* field = find(body, "stop");
  if (field == nullptr) return stops;
  array one;
  if (field->is_string()) one.push_back(*field);
  const array* list = field->is_string() ? &one : field->if_array();
  if (list == nullptr) return refuse("stop", "Input should be a string or a list");
  if (list->size() > kStopsMax) {
    return refuse("stop", fmt::format("List should have at most {} items", kStopsMax));
  }
  for (const value& item : *list) {
    const boost::json::string* text = item.if_string();
    if (text == nullptr) return refuse("stop", "Input should be a valid string");
    if (text->size() > kStopBytesMax) {
      return refuse("stop", fmt::format("String should have at most {} bytes", kStopBytesMax));
    }
    if (!text->empty()) stops.emplace_back(view(*text));
  }
  return stops;
}

/// What an answer without it would not be the answer to.
std::expected<void, Refusal> check_supported(const object& body) {
  const value* choices = find(body, "n");
  if (choices != nullptr && *choices != 1) return refuse("n", "this server gives one choice");
  const value* logprobs = find(body, "logprobs");
  if (logprobs != nullptr && *logprobs != false) {
    return refuse("logprobs", "this server does not give them");
  }
  if (find(body, "functions") != nullptr) return refuse("functions", "use tools");
  if (const value* modalities = find(body, "modalities")) {
    if (*modalities != array{"text"}) return refuse("modalities", "this server gives text only");
  }
  return {};
}

/// `reasoning_effort` as `thinking`, and the effort as far as Anthropic's API has that one. Without
/// it the model does not think, as on the other face.
struct Reasoning {
  std::string thinking;
  std::string effort;
};
std::expected<Reasoning, Refusal> reasoning_of(const object& body) {
  constexpr std::string_view kKey = "reasoning_effort";
  if (find(body, kKey) == nullptr) return Reasoning();
  const auto effort = require_string(body, kKey);
  if (!effort) return std::unexpected(effort.error());
  if (*effort == "none" || *effort == "minimal") {
    return Reasoning{R"({"type":"disabled"})", std::string()};
  }
  std::string quoted;
  append_json(quoted, *effort);
  return Reasoning{R"({"type":"adaptive"})", R"("effort":)" + quoted};
}

/// Members of `output_config`, each of which may be empty.
std::string output_config(std::string_view schema, std::string_view effort) {
  std::string out;
  if (!schema.empty())
    out += fmt::format(R"("format":{{"type":"json_schema","schema":{}}})", schema);
  if (!out.empty() && !effort.empty()) out += ',';
  out += effort;
  return out;
}

void append_member(std::string& out, std::string_view key, std::string_view json) {
  if (json.empty()) return;
  out += fmt::format(",\"{}\":", key);
  out += json;
}

Text messages_body_of(const object& body, std::string_view raw) {
  if (const auto supported = check_supported(body); !supported) {
    return std::unexpected(supported.error());
  }
  const auto messages = messages_of(body);
  if (!messages) return messages;
  const auto tools = tools_of(body, raw);
  if (!tools) return tools;
  const auto choice = tool_choice_of(body);
  if (!choice) return choice;
  const auto schema = schema_of(body, raw);
  if (!schema) return schema;
  const auto reasoning = reasoning_of(body);
  if (!reasoning) return std::unexpected(reasoning.error());
  std::string out = R"({"messages":)";
  out += *messages;
  const bool completes = find(body, "max_completion_tokens") != nullptr;
  const std::string_view limit = completes ? "max_completion_tokens" : "max_tokens";
  const bool limited = find(body, limit) != nullptr;
  append_member(out, "max_tokens", limited ? raw_member(raw, limit) : "4294967295");
  if (!tools->empty()) {
    append_member(out, "tools", "[" + *tools + "]");
    append_member(out, "tool_choice", *choice);
  }
  append_member(out, "thinking", reasoning->thinking);
  const std::string config = output_config(*schema, reasoning->effort);
  if (!config.empty()) append_member(out, "output_config", "{" + config + "}");
  for (const std::string_view key : {"model", "stream", "temperature", "top_p", "top_k", "seed"}) {
    append_member(out, key, raw_member(raw, key));
  }
  return out + '}';
}

}  // namespace

std::expected<ChatRequest, ApiError> parse_chat_request(std::string_view body, bool sees) {
  ChatRequest request;
  std::string translated;
  std::vector<std::string> stops;
  {  // One parsed form at a time: that is what a request is charged for.
    const auto parsed = parse_json(body);
    if (!parsed) return std::unexpected(parsed.error());
    const object* members = parsed->if_object();
    if (members == nullptr) {
      return std::unexpected(invalid_request("The request body should be a JSON object"));
    }
    auto text = messages_body_of(*members, body);
    if (!text) return std::unexpected(to_error(text.error()));
    translated = *std::move(text);
    auto sequences = stops_of(*members);
    if (!sequences) return std::unexpected(to_error(sequences.error()));
    stops = *std::move(sequences);
    const value* options = find(*members, "stream_options");
    const object* chosen = options != nullptr ? options->if_object() : nullptr;
    const value* usage = chosen != nullptr ? find(*chosen, "include_usage") : nullptr;
    request.include_usage = usage != nullptr && usage->is_bool() && usage->get_bool();
  }
  auto messages = parse_messages_request(translated, sees);
  if (!messages) return std::unexpected(messages.error());
  request.messages = *std::move(messages);
  request.messages.stop_sequences = std::move(stops);
  return request;
}

}  // namespace pensieve::api
