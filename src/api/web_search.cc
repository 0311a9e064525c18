#include "api/web_search.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "api/json.h"

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;
using engine::Message;
using engine::Role;

constexpr std::string_view kNote =
    "A web search for this was tried and failed: this server has no web search. There are no "
    "results, so do not write any. If the answer needs the web, say that it could not be searched.";

bool is_search(const value& tool) {
  const object* members = tool.if_object();
  const value* type = members == nullptr ? nullptr : find(*members, "type");
  const boost::json::string* name = type == nullptr ? nullptr : type->if_string();
  return name != nullptr && name->starts_with("web_search_");
}

bool may_call(const object& body) {
  const value* choice = find(body, "tool_choice");
  const object* members = choice == nullptr ? nullptr : choice->if_object();
  const value* type = members == nullptr ? nullptr : find(*members, "type");
  return type == nullptr || *type != "none";
}

/// At most kQueryBytesMax bytes, and no part of a character.
std::string query_from(std::string_view text) {
  if (text.size() <= kQueryBytesMax) return std::string(text);
  std::size_t end = kQueryBytesMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return std::string(text.substr(0, end));
}

}  // namespace

bool only_searches(const object& body) {
  const value* tools = find(body, "tools");
  const boost::json::array* list = tools == nullptr ? nullptr : tools->if_array();
  return list != nullptr && !list->empty() && std::ranges::all_of(*list, is_search);
}

std::optional<std::string> failed_search(const object& body, engine::Prompt& prompt) {
  if (prompt.continues_last || !only_searches(body) || !may_call(body)) return std::nullopt;
  const auto said = std::ranges::find(prompt.messages.rbegin(), prompt.messages.rend(), Role::kUser,
                                      &Message::role);
  std::string query = said == prompt.messages.rend() ? std::string() : query_from(said->text);
  Message& last = prompt.messages.back();
  if (last.role == Role::kSystem) {
    last.text += '\n';
    last.text += kNote;
  } else {
    prompt.messages.push_back({Role::kSystem, std::string(kNote)});
  }
  return query;
}

}  // namespace pensieve::api
