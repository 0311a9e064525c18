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
#include "engine/engine.h"

namespace pensieve::api {

/// A piece of a turn's text. Pieces are never empty.
struct Part {
  enum class Kind : std::uint8_t { kText, kToolUse, kToolResult };

  Kind kind = Kind::kText;
  std::string text;
  std::string tool_use_id;  // Of kToolUse and kToolResult.
};

/// Reads the value of a `content` field: a string, or a list of blocks.
///
///   text                         its text; empty ones vanish
///   thinking, redacted_thinking  nothing: a model without thinking did not produce them, and its
///                                template has no place for them
///   tool_use                     <tool_call>\n{"name":...,"arguments":...}\n</tool_call>, with the
///                                compact_json of `input`; without the id, which is random and
///                                would differ between equal conversations
///   tool_result                  <tool_response>\n...\n</tool_response>; its own blocks are joined
///                                by "\n", images and documents become a note, a tool_reference
///                                becomes the tool's name; "Error: " goes in front where is_error
///   image, document              refused: this model cannot read them
///   tool_addition, tool_removal  nothing, in system messages only: tools are not offered yet
///   anything else                refused by name, because its content would be lost
///
/// tool_use stands only in assistant messages, tool_result only in user messages. Unknown fields of
/// known blocks, `cache_control` among them, are ignored. `raw` is the text that `content` was
/// parsed from; system messages, which hold no tool_use, do not need it.
std::expected<std::vector<Part>, Refusal> parse_content(const boost::json::value& content,
                                                        std::string_view raw, engine::Role role);

}  // namespace pensieve::api
