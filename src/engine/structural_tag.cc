#include "engine/structural_tag.h"

#include <fmt/format.h>

#include "engine/tool_text.h"

namespace pensieve::engine {
namespace {

std::string call_tag(const Tool& tool, const CallSpelling& spelling,
                     const SchemaFormat& schema_format) {
  const std::string begin =
      fmt::format("{}{}{}", spelling.begin, json_string(tool.name), spelling.arguments);
  return fmt::format(R"({{"type":"tag","begin":{},"content":{},"end":{}}})", json_string(begin),
                     schema_format(tool.parameters, spelling.spaces_max),
                     json_string(spelling.end));
}

/// The calls that may be made, as a list of tags.
std::string call_tags(const Prompt& prompt, const CallSpelling& spelling,
                      const SchemaFormat& schema_format) {
  std::string tags;
  for (const Tool& tool : prompt.tools) {
    const bool is_other =
        prompt.rules.tool_choice == ToolChoice::kNamed && tool.name != prompt.rules.tool_name;
    if (is_other) continue;
    if (!tags.empty()) tags += ',';
    tags += call_tag(tool, spelling, schema_format);
  }
  return tags;
}

std::string calls_format(const Prompt& prompt, const CallSpelling& spelling,
                         const SchemaFormat& schema_format, bool must_call) {
  return fmt::format(R"({{"type":"triggered_tags","triggers":[{}],"tags":[{}],)"
                     R"("at_least_one":{},"stop_after_first":{}}})",
                     json_string(kCallMark), call_tags(prompt, spelling, schema_format), must_call,
                     !prompt.rules.parallel_calls);
}

/// Empty where every text is right.
std::string format_of(const Prompt& prompt, const CallSpelling& spelling,
                      const SchemaFormat& schema_format) {
  const AnswerRules& rules = prompt.rules;
  const bool may_call = !prompt.tools.empty() && rules.tool_choice != ToolChoice::kNone;
  const bool must_call = may_call && rules.tool_choice != ToolChoice::kAuto;
  if (!rules.json_schema.empty() && !must_call) {
    const std::string value = schema_format(rules.json_schema, 0);
    if (!may_call) return value;
    return fmt::format(R"({{"type":"or","elements":[{},{}]}})", value,
                       calls_format(prompt, spelling, schema_format, true));
  }
  if (may_call) return calls_format(prompt, spelling, schema_format, must_call);
  if (prompt.tools.empty()) return {};
  return fmt::format(R"({{"type":"any_text","excludes":[{}]}})", json_string(kCallMark));
}

}  // namespace

CallSpelling plain_spelling() {
  return {kCallBegin, kCallArguments, kCallEnd, 0};
}

CallSpelling hermes_spelling() {
  return {"<tool_call>\n{\"name\": ", ", \"arguments\": ", "}\n</tool_call>", 1};
}

std::string grammar_format(std::string_view grammar) {
  return fmt::format(R"({{"type":"grammar","grammar":{}}})", json_string(grammar));
}

std::string tag_of_format(std::string_view format) {
  return fmt::format(R"({{"type":"structural_tag","format":{}}})", format);
}

std::string structural_tag(const Prompt& prompt, const CallSpelling& spelling,
                           const SchemaFormat& schema_format) {
  const std::string format = format_of(prompt, spelling, schema_format);
  return format.empty() ? std::string() : tag_of_format(format);
}

}  // namespace pensieve::engine
