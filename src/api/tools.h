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

  /// What stands for the addition of a tool: as reference(), and nothing where it could be called
  /// already or is not known.
  std::string add(std::string_view name);

  /// A tool that the conversation itself defines, by an element of `tools`; returns what stands
  /// there. Errors: as parse_tools(), and where there are kToolsMax already.
  std::expected<std::string, Refusal> define(const boost::json::value& element,
                                             std::string_view raw);

  /// What stands for the removal of a tool, which may not be called until it is added again.
  std::string remove(std::string_view name);

  /// Deferred tools that nothing refers to are dropped, and so are removed ones: they may not be
  /// called.
  void drop_unavailable();

 private:
  bool is_available(const engine::Tool& tool) const;

  std::vector<engine::Tool>& tools_;
  std::vector<std::string> referenced_;  // At most one for each tool, as the next one.
  std::vector<std::string> removed_;
};

}  // namespace pensieve::api
