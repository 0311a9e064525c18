// The `tools`, `tool_choice` and output format of a request: what the model is offered, and what
// its answer may look like.
#pragma once

#include <cstddef>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

#include "api/json.h"
#include "engine/engine.h"

namespace pensieve::api {

/// Most tools of one request. Claude Code has 25, with MCP servers a few hundred.
inline constexpr std::size_t kToolsMax = 1024;
inline constexpr std::size_t kToolNameBytesMax = 128;

/// Reads `tools`, in order:
///
///   no type, or "custom"    name, description, input_schema. Other members are ignored.
///   defer_loading           the tool is not shown; a tool_reference in a result shows it there
///                           (ToolList::reference()), and from then on it may be called
///   web_search_*            not offered: there is no search here (web_search.h)
///   other types             refused: their meaning is Anthropic's, and the model would not know it
///
/// Errors: name and type of each field, names that are empty, too long or there twice.
std::expected<std::vector<engine::Tool>, Refusal> parse_tools(const boost::json::object& body,
                                                              std::string_view raw);

/// Reads `tool_choice` and the format in `output_config` (or, older, `output_format`).
/// Errors: a choice that needs tools where there are none, or names one that is not there.
std::expected<engine::AnswerRules, Refusal> parse_answer_rules(
    const boost::json::object& body, std::string_view raw, const std::vector<engine::Tool>& tools);

/// The tools of a request while its messages are read.
class ToolList {
 public:
  explicit ToolList(std::vector<engine::Tool>& tools) : tools_(tools) {}

  /// What stands for a tool_reference in a tool's result: the description that the client's own
  /// prompt promises, or the name where there is no such tool. The tool may be called from now on.
  std::string reference(std::string_view name);

  /// Deferred tools that nothing refers to are dropped: they may not be called.
  void drop_unreferenced();

 private:
  std::vector<engine::Tool>& tools_;
  std::vector<std::string> referenced_;  // At most one for each tool.
};

}  // namespace pensieve::api
