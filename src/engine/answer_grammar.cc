#include "engine/answer_grammar.h"

#include <exception>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"

namespace pensieve::engine {
namespace {

constexpr std::string_view kAnyObject = R"({"type":"object"})";
constexpr std::string_view kAnyJson = "{}";

Result<std::string> tag_of(const Prompt& prompt, const CallSpelling& spelling) {
  try {
    return structural_tag(prompt, spelling, schema_format);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument, error.what());
  }
}

}  // namespace

Result<std::shared_ptr<const TokenGrammar>> AnswerGrammars::of(const Prompt& prompt,
                                                               const CallSpelling& spelling) {
  const Result<std::string> tag = tag_of(prompt, spelling);
  if (tag && tag->empty()) return nullptr;
  if (tag) {
    auto grammar = compiler_.compile(*tag);
    if (grammar || tag->size() > GrammarCompiler::kTagBytesMax) return grammar;
  }
  const Result<std::string> weaker = tag_of(weakened(prompt, spelling), spelling);
  if (!weaker) return std::unexpected(weaker.error());
  return compiler_.compile(*weaker);
}

bool AnswerGrammars::can_enforce(const Prompt& prompt, const CallSpelling& spelling) {
  const Result<std::string> tag = tag_of(prompt, spelling);
  return tag && compiler_.compile(*tag).has_value();
}

Prompt AnswerGrammars::weakened(const Prompt& prompt, const CallSpelling& spelling) {
  Prompt weak;
  weak.rules = prompt.rules;
  for (const Tool& tool : prompt.tools) {
    Prompt alone;
    alone.tools = {tool};
    if (!can_enforce(alone, spelling)) {
      note("arguments of " + tool.name, tool.parameters);
      alone.tools[0].parameters = kAnyObject;
    }
    weak.tools.push_back(std::move(alone.tools[0]));
  }
  if (weak.rules.json_schema.empty()) return weak;
  Prompt alone;
  alone.rules.json_schema = prompt.rules.json_schema;
  if (!can_enforce(alone, spelling)) {
    note("the answer", prompt.rules.json_schema);
    weak.rules.json_schema = kAnyJson;
  }
  return weak;
}

void AnswerGrammars::note(const std::string& what, const std::string& schema) {
  {
    const std::lock_guard lock(mutex_);
    if (!noted_.insert(schema).second) return;
    if (noted_.size() > kNotedMax) noted_.clear();
  }
  log::warning("the schema of {} cannot be enforced; any JSON is accepted there", what);
}

}  // namespace pensieve::engine
