// Tools for models whose chat template has no place for them: the offer, the calls and the results
// as plain text, in the form that most models with tools were trained on (Hermes, Qwen).
#pragma once

#include <string>
#include <string_view>

#include "engine/prompt.h"

namespace pensieve::engine {

// A call: kCallBegin NAME kCallArguments ARGUMENTS kCallEnd.
inline constexpr std::string_view kCallMark = "<tool_call>";
inline constexpr std::string_view kCallBegin = "<tool_call>\n{\"name\":";
inline constexpr std::string_view kCallArguments = ",\"arguments\":";
inline constexpr std::string_view kCallEnd = "}\n</tool_call>";

/// `text` as a JSON string. REQUIRES: valid UTF-8, as all text of a request is.
std::string json_string(std::string_view text);

/// The call as a model writes it, byte for byte, so that an answer and its replay are one prefix.
std::string call_text(const ToolCall& call);

/// One tool as a line of JSON: {"type":"function","function":{...}}.
std::string tool_line(const Tool& tool);

/// The same conversation without tools, calls and results: the offer ends the leading system
/// message (or becomes one), calls end their turns, and results are told by the user. Neighbours
/// of one role are merged by "\n". Thoughts stay, and of the rules those about thinking.
Prompt with_tools_as_text(const Prompt& prompt);

}  // namespace pensieve::engine
