// Forms of calls that no mark of their own opens, as NativeForm has them. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/native_form.h"

namespace pensieve::engine {

/// Harmony (gpt-oss): a call's name stands in the head of a message, behind the role or behind the
/// channel. `grammar` is llama-common's at auto; the form is of the whole answer. Errors:
/// kInvalidArgument where it is another.
Result<NativeForm> form_of_heads(std::string_view grammar);

/// Llama 3: a call is an object that begins with its name. `grammar` is llama-common's where a call
/// must come; it begins with `prompt_end`, what the template writes for the assistant. The form has
/// no marks. Errors: kInvalidArgument where it is another.
Result<NativeForm> form_of_objects(std::string_view grammar, std::string_view prompt_end);

/// The grammar of any text that is no call of form_of_objects(): whose first brace opens something
/// else than the name of one of `tools`. Its first rule is `name`.
std::string no_object_grammar(std::string_view name, const std::vector<std::string>& tools);

}  // namespace pensieve::engine
