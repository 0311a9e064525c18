#include "engine/answer_grammar.h"

#include <exception>
#include <functional>
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

/// The tools and rules alone: what grammars are made of.
Prompt shape_of(const Prompt& prompt) {
  Prompt shape;
  shape.tools = prompt.tools;
  shape.rules = prompt.rules;
  return shape;
}

}  // namespace

Result<std::shared_ptr<const TokenGrammar>> AnswerGrammars::of(const Prompt& prompt,
                                                               const CallSpelling& spelling) {
  const Prompt known = without_hopeless(prompt);
  if (const Result<std::string> tag = tag_of(known, spelling)) {
    if (tag->empty()) return nullptr;
    auto grammar = compiler_.compile(*tag);
    if (grammar) return grammar;
  }
  const Result<std::string> weaker = tag_of(weakened(known, spelling), spelling);
  if (!weaker) return std::unexpected(weaker.error());
  auto grammar = compiler_.compile(*weaker);
  if (grammar) return grammar;
  // Each is fine alone, and they are too many or too long together, or others hold the compiler.
  log::warning("no schema of this request is enforced: {}", grammar.error().message);
  Prompt weakest = shape_of(known);
  for (Tool& tool : weakest.tools) tool.parameters = kAnyObject;
  if (!weakest.rules.json_schema.empty()) weakest.rules.json_schema = kAnyJson;
  const Result<std::string> tag = tag_of(weakest, spelling);
  if (!tag) return std::unexpected(tag.error());
  return compiler_.compile_simple(*tag);
}

AnswerGrammars::Verdict AnswerGrammars::judge(const Prompt& prompt, const CallSpelling& spelling) {
  const Result<std::string> tag = tag_of(prompt, spelling);
  if (!tag) return Verdict::kHopeless;
  const auto grammar = compiler_.compile(*tag);
  if (grammar) return Verdict::kFine;
  return grammar.error().code == Code::kUnavailable ? Verdict::kNotNow : Verdict::kHopeless;
}

std::string AnswerGrammars::enforceable(const std::string& schema, const std::string& weaker,
                                        Verdict verdict, const std::string& what) {
  if (verdict == Verdict::kFine) return schema;
  if (verdict == Verdict::kHopeless && note_hopeless(schema)) {
    log::warning("the schema of {} cannot be enforced; any JSON is accepted there", what);
  }
  return weaker;
}

Prompt AnswerGrammars::without_hopeless(const Prompt& prompt) {
  Prompt known = shape_of(prompt);
  for (Tool& tool : known.tools) {
    if (is_hopeless(tool.parameters)) tool.parameters = kAnyObject;
  }
  if (is_hopeless(known.rules.json_schema)) known.rules.json_schema = kAnyJson;
  return known;
}

Prompt AnswerGrammars::weakened(const Prompt& prompt, const CallSpelling& spelling) {
  Prompt weak = shape_of(prompt);
  for (Tool& tool : weak.tools) {
    Prompt alone;
    alone.tools = {tool};
    tool.parameters = enforceable(tool.parameters, std::string(kAnyObject), judge(alone, spelling),
                                  "arguments of " + tool.name);
  }
  if (weak.rules.json_schema.empty()) return weak;
  Prompt alone;
  alone.rules.json_schema = weak.rules.json_schema;
  weak.rules.json_schema = enforceable(weak.rules.json_schema, std::string(kAnyJson),
                                       judge(alone, spelling), "the answer");
  return weak;
}

bool AnswerGrammars::is_hopeless(const std::string& schema) {
  const std::lock_guard lock(mutex_);
  return hopeless_.contains(std::hash<std::string>()(schema));
}

bool AnswerGrammars::note_hopeless(const std::string& schema) {
  const std::lock_guard lock(mutex_);
  if (hopeless_.size() >= kHopelessMax) hopeless_.clear();
  return hopeless_.insert(std::hash<std::string>()(schema)).second;
}

}  // namespace pensieve::engine
