#include "engine/prompt_check.h"

#include <algorithm>
#include <string>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "base/text.h"
#include "engine/tool_text.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

/// Looks for the parts of one message behind the one before it. A template may put them in any
/// order.
class MessageSearch {
 public:
  MessageSearch(std::string_view rendered, std::size_t from)
      : rendered_(rendered), from_(from), end_(from) {}

  bool has(std::string_view text) {
    text = trimmed(text);
    const std::size_t at = rendered_.find(text, from_);
    if (at == std::string_view::npos) return false;
    end_ = std::max(end_, at + text.size());
    return true;
  }

  /// Numbers and the like are in too many places to tell anything.
  bool has_strings(const json::value& value) {
    if (const json::string* const text = value.if_string()) {
      if (has(*text)) return true;
      const std::string escaped = json_string(*text);
      return has(std::string_view(escaped).substr(1, escaped.size() - 2));
    }
    if (const json::array* const array = value.if_array()) {
      return std::all_of(array->begin(), array->end(),
                         [this](const json::value& one) { return has_strings(one); });
    }
    const json::object* const object = value.if_object();
    return object == nullptr ||
           std::all_of(object->begin(), object->end(), [this](const auto& one) {
             return has(one.key()) && has_strings(one.value());
           });
  }

  std::size_t end() const { return end_; }

 private:
  const std::string_view rendered_;
  const std::size_t from_;
  std::size_t end_;
};

bool has_call(const ToolCall& call, MessageSearch& search) {
  if (!search.has(call.name)) return false;
  boost::system::error_code error;
  const json::value arguments = json::parse(call.arguments, error);
  return error ? search.has(call.arguments) : search.has_strings(arguments);
}

}  // namespace

bool keeps_all(const Prompt& form, std::string_view rendered) {
  std::size_t from = 0;
  for (const Message& message : form.messages) {
    MessageSearch search(rendered, from);
    const bool has_calls =
        std::all_of(message.calls.begin(), message.calls.end(),
                    [&search](const ToolCall& call) { return has_call(call, search); });
    if (!has_calls || !search.has(message.text)) return false;
    from = search.end();
  }
  return true;
}

Prompt with_words(const Prompt& form) {
  Prompt words = form;
  std::size_t count = 0;
  // Longer than anything that a template would write by chance, and of letters alone.
  const auto next_word = [&count] { return fmt::format("zqxword{}xqz", count++); };
  for (Message& message : words.messages) {
    if (!trimmed(message.text).empty()) message.text = next_word();
    for (ToolCall& call : message.calls) {
      call.arguments = fmt::format(R"({{"input":"{}"}})", next_word());
    }
  }
  for (Tool& tool : words.tools) {
    tool.description = "d";
    tool.parameters = R"({"type":"object","properties":{"input":{"type":"string"}}})";
  }
  return words;
}

}  // namespace pensieve::engine
