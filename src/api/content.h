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
  enum class Kind : std::uint8_t { kText, kThinking, kToolUse, kToolResult, kImage };

  Kind kind = Kind::kText;
  std::string text = {};         // Of kText, kThinking and kToolResult.
  std::string tool_use_id = {};  // Of kToolUse and kToolResult.
  std::string tool_name = {};    // Of kToolUse.
  std::string arguments = {};    // Of kToolUse: compact_json of `input`.
  /// Of kImage: one. Of kToolResult: those in its text.
  std::vector<engine::Image> images = {};
};

/// What content is read for.
struct Reader {
  engine::Role role = engine::Role::kUser;  // Whose content it is.
  ToolList& tools;
  bool sees = false;     // Whether the model reads images.
  bool is_over = false;  // `clear_at` was reached: its text is not shown any more.
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
///   tool_result                  its own blocks joined by "\n"; images that the model cannot see
///                                and documents become a note, a tool_reference the description
///                                of the tool; "Error: " goes in front where is_error
///   search_result                its text below title and source
///   image                        a picture, of the user only; refused where the model cannot see,
///                                and where the source is not "base64" of a known media type
///   document                     its text below title and context; refused where it is no text
///   tool_addition                the tool's description, and from there on it may be called
///   tool_removal                 that the tool is gone; it may not be called any more
///   anything else                refused by name, because its content would be lost
///
/// tool_use stands only in assistant messages, tool_result only in user messages. Unknown fields of
/// known blocks, `cache_control` among them, are ignored. `raw` is the text that `content` was
/// parsed from. Images have fields that
/// begin with the index of their block; what they are files of is not looked into.
std::expected<std::vector<Part>, Refusal> parse_content(const boost::json::value& content,
                                                        std::string_view raw, Reader reader);

/// Puts `outer` in front of the fields of a part's images.
void put_within(std::string_view outer, Part& part);

}  // namespace pensieve::api
