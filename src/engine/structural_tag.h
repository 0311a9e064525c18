// What an answer may look like, written as xgrammar's structural tag (a JSON text). Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "engine/prompt.h"

namespace pensieve::engine {

/// How calls are spelled: what stands before the name, between name and arguments, and after.
/// Every call begins with kCallMark.
struct CallSpelling {
  std::string_view begin;
  std::string_view arguments;
  std::string_view end;
  /// Most white space between the tokens of the arguments. Bounded in any case: a small model can
  /// go on writing spaces for ever.
  int spaces_max = 0;
};

/// What tool_text.h teaches a model that knows no tools.
CallSpelling plain_spelling();
/// What Qwen's and Hermes' templates write: the same with Python's spaces.
CallSpelling hermes_spelling();

/// `grammar` as a format of a structural tag.
std::string grammar_format(std::string_view grammar);

/// The structural tag of a format.
std::string tag_of_format(std::string_view format);

/// Writes a JSON schema as a format of a structural tag, for values that are spelled so.
using SchemaFormat = std::function<std::string(std::string_view schema, int spaces_max)>;

/// The structural tag for answers to `prompt`. Empty where every text is right: no tools to call,
/// no schema to keep.
///
///   tools, kAuto          any text; after each `<tool_call>` only a call of a tool of the prompt,
///                         whose arguments keep its schema
///   kAny, kNamed          the same, and the answer begins with a call
///   kNone                 any text without `<tool_call>`
///   not parallel_calls    the answer ends with the first call
///   json_schema           one JSON value of that schema; with tools, that or calls
std::string structural_tag(const Prompt& prompt, const CallSpelling& spelling,
                           const SchemaFormat& schema_format);

}  // namespace pensieve::engine
