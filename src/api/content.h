// The content of one message: blocks in, text out. What a text model cannot take is either left
// out by a rule written here or refused; nothing is lost in silence.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

#include "api/json.h"
#include "api/tools.h"
#include "engine/engine.h"

namespace pensieve::api {

/// A piece of a turn. Texts are never empty, but a tool's result may be.
struct Part {
  enum class Kind : std::uint8_t { kText, kThinking, kToolUse, kToolResult };

  Kind kind = Kind::kText;
  std::string text = {};         // Of kText, kThinking and kToolResult.
  std::string tool_use_id = {};  // Of kToolUse and kToolResult.
  std::string tool_name = {};    // Of kToolUse.
  std::string arguments = {};    // Of kToolUse: compact_json of `input`.
};

/// Reads the value of a `content` field: a string, or a list of blocks.
///
///   text                         its text; empty ones vanish
///   thinking                     its thoughts, whatever the signature, or those that our signature
///                                holds; a template that has a place for them shows them
///   redacted_thinking            nothing: only its author can read it
///   server_tool_use              nothing: the result says it
///   web_search_tool_result       titles and addresses of the pages; nothing where it failed
///   tool_use                     name and input; the id tells which result belongs to it
///   tool_result                  its own blocks joined by "\n"; images and documents become a
///                                note, a tool_reference the description of the tool; "Error: "
///                                goes in front where is_error
///   image, document              refused: this model cannot read them
///   tool_addition, tool_removal  nothing, in system messages only: `tools` has what there is
///   anything else                refused by name, because its content would be lost
///
/// tool_use stands only in assistant messages, tool_result only in user messages. Unknown fields of
/// known blocks, `cache_control` among them, are ignored. `raw` is the text that `content` was
/// parsed from; system messages, which hold no tool_use, do not need it.
std::expected<std::vector<Part>, Refusal> parse_content(const boost::json::value& content,
                                                        std::string_view raw, engine::Role role,
                                                        ToolList& tools);

}  // namespace pensieve::api
