#include "engine/native_text.h"

#include <cstdint>
#include <optional>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "engine/grammar_text.h"
#include "engine/schema_formats.h"
#include "engine/schema_pointer.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

std::string choice_of(const json::array& values, std::string_view end) {
  std::string grammar;
  for (const json::value& value : values) {
    const json::string* const text = value.if_string();
    if (text == nullptr || std::string_view(*text).find(end) != std::string_view::npos) continue;
    if (!grammar.empty()) grammar += " | ";
    grammar += grammar_literal(*text);
  }
  return grammar;
}

std::optional<std::int64_t> count_in(const json::object& schema, std::string_view keyword) {
  const json::value* const count = schema.if_contains(keyword);
  if (count == nullptr || !count->is_int64()) return std::nullopt;
  return count->get_int64();
}

/// Any character but the first of `end`.
std::string class_without(std::string_view end) {
  const char first = end.empty() ? '<' : end.front();
  if (first == '\n') return "[^\\n]";
  if (first == ']' || first == '\\' || first == '^' || first == '-' || first == '[') {
    return fmt::format("[^\\{}]", first);
  }
  return fmt::format("[^{}]", first);
}

}  // namespace

std::string native_text_grammar(std::string_view schema, std::string_view end,
                                const PatternGrammar& pattern_grammar) {
  const std::optional<json::value> value = parsed_schema(with_bounded_formats(schema));
  const std::string any =
      fmt::format("TagDispatch(loop_after_dispatch=false, excludes=({}))\n", grammar_literal(end));
  const json::object* const object = value ? value->if_object() : nullptr;
  if (object == nullptr) return "root ::= " + any;

  std::string choice;
  if (const json::value* const one = object->if_contains("const")) {
    choice = choice_of({*one}, end);
  } else if (const json::value* const several = object->if_contains("enum");
             several && several->is_array()) {
    choice = choice_of(several->get_array(), end);
  }
  if (!choice.empty()) return "root ::= " + choice + "\n";

  if (const json::value* const pattern = object->if_contains("pattern");
      pattern && pattern->is_string()) {
    return pattern_grammar(std::string_view(pattern->get_string()));
  }
  std::int64_t least = 0;
  if (const auto count = count_in(*object, "minLength")) least = *count;
  if (const auto most = count_in(*object, "maxLength")) {
    return fmt::format("root ::= {}{{{},{}}}\n", class_without(end), least, *most);
  }
  if (least == 0) return "root ::= " + any;
  return fmt::format("root ::= {}{{{},{}}} rest\nrest ::= {}", class_without(end), least, least,
                     any);
}

}  // namespace pensieve::engine
