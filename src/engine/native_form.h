// Calls in a template's own form, with the arguments that their schemas ask for. Llama-common
// writes the form as a grammar for stand-ins (native_calls.h). In it these are given their own
// names, and values the grammar of their own schema. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/native_calls.h"

namespace pensieve::engine {

/// A grammar, whose first rule is `root`, for the calls at the end of an answer.
struct NativeForm {
  std::string grammar;
  /// What the first call begins with, one of these. Text in front of calls has none of them. Empty:
  /// a call is the first object of the answer (native_marks.h).
  std::vector<std::string> marks;
  bool is_whole_answer = false;         // The grammar is for text and calls.
  std::vector<std::string> tools = {};  // Names of those that it calls; without marks.
};

/// What is asked for to find out a form's NativeArguments.
std::vector<Tool> probe_tools();
NativeArguments native_arguments(const NativeForm& form_of_probe_tools);

/// Grammars for values; may throw.
struct ValueGrammars {
  /// JSON that keeps `schema`, for `call`.
  std::function<std::string(const NativeCall& call, const std::string& schema)> json;
  /// A string that keeps `schema` as it is, without quotation marks, in front of `end`.
  std::function<std::string(const std::string& schema, std::string_view end)> text;
};

/// `form`, which is that of stand_ins(calls), with the names and values of `calls`. Errors:
/// kInvalidArgument where the form is not what `arguments` says.
Result<NativeForm> with_calls(const NativeForm& form, const NativeArguments& arguments,
                              const std::vector<NativeCall>& calls, const ValueGrammars& values);

/// `form` as a structural tag of xgrammar: any text, or text and calls at its end.
std::string native_tag(const NativeForm& form);

}  // namespace pensieve::engine
