#include "engine/answer_grammar.h"

#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "engine/schema_normalize.h"
#include "engine/schema_simpler.h"

namespace pensieve::engine {
namespace {

constexpr std::string_view kAnyObject = R"({"type":"object"})";
constexpr std::string_view kAnyJson = "{}";
constexpr std::size_t kToldMax = 1'024;  // Messages; then they are all told again.

void tell_once(std::string message) {
  static std::mutex mutex;
  static std::set<std::string> told;
  {
    const std::lock_guard lock(mutex);
    if (told.size() >= kToldMax) told.clear();
    if (!told.insert(message).second) return;
  }
  log::warning("{}", message);
}

/// The tools and rules alone: what grammars are made of.
Prompt shape_of(const Prompt& prompt) {
  Prompt shape;
  shape.rules = prompt.rules;
  shape.tools = prompt.tools;
  return shape;
}

enum class Strength : std::uint8_t { kWhole, kSimpler };

/// All that tag_of() looks at, each part with its length, so that no two requests share one.
std::string key_of(const Prompt& shape, const CallSpelling& spelling, Strength strength) {
  const AnswerRules& rules = shape.rules;
  std::string key = fmt::format("{} {} {} {}", static_cast<int>(strength), rules.parallel_calls,
                                static_cast<int>(rules.tool_choice), spelling.spaces_max);
  const auto add = [&key](std::string_view part) {
    key += fmt::format(" {}:", part.size());
    key += part;
  };
  for (const std::string_view part :
       {std::string_view(rules.tool_name), spelling.begin, spelling.arguments, spelling.end}) {
    add(part);
  }
  add(rules.json_schema);
  for (const Tool& tool : shape.tools) {
    add(tool.name);
    add(tool.parameters);
  }
  return key;
}

/// Schemas as formats of a structural tag, each made once.
class Formats {
 public:
  /// What `schema` becomes.
  std::string add(const std::string& schema, SchemaPlace place, Strength strength, int spaces_max,
                  const std::string& what) {
    NormalizedSchema known = normalized_schema(schema, place, can_follow_pattern);
    for (const std::string& note : known.not_enforced) {
      tell_once(fmt::format("the schema of {} is not enforced in all it says: {}", what, note));
    }
    const std::string simpler = simpler_schema(known.schema);
    if (strength == Strength::kWhole && try_add(known.schema, spaces_max, what)) {
      return known.schema;
    }
    if (try_add(simpler, spaces_max, what)) return simpler;
    const std::string any(place == SchemaPlace::kToolInput ? kAnyObject : kAnyJson);
    formats_[{any, spaces_max}] = schema_format(any, spaces_max);
    tell_once(fmt::format("the schema of {} is not enforced at all", what));
    return any;
  }

  const std::string& at(std::string_view schema, int spaces_max) const {
    return formats_.at({std::string(schema), spaces_max});
  }

 private:
  bool try_add(const std::string& schema, int spaces_max, const std::string& what) {
    try {
      formats_[{schema, spaces_max}] = schema_format(schema, spaces_max);
      return true;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      tell_once(
          fmt::format("the schema of {} is not enforced in all it says: {}", what, error.what()));
      return false;
    }
  }

  std::map<std::pair<std::string, int>, std::string> formats_;
};

/// Throws xgrammar's errors.
std::string tag_of(Prompt shape, const CallSpelling& spelling, Strength strength) {
  Formats formats;
  for (Tool& tool : shape.tools) {
    const AnswerRules& rules = shape.rules;
    if (rules.tool_choice == ToolChoice::kNone) break;
    if (rules.tool_choice == ToolChoice::kNamed && rules.tool_name != tool.name) continue;
    tool.parameters = formats.add(tool.parameters, SchemaPlace::kToolInput, strength,
                                  spelling.spaces_max, "the input of " + tool.name);
  }
  std::string& schema = shape.rules.json_schema;
  if (!schema.empty())
    schema = formats.add(schema, SchemaPlace::kAnswer, strength, 0, "the answer");
  return structural_tag(shape, spelling, [&formats](std::string_view known, int spaces_max) {
    return formats.at(known, spaces_max);
  });
}

}  // namespace

Result<std::shared_ptr<const TokenGrammar>> AnswerGrammars::of(const Prompt& prompt,
                                                               const CallSpelling& spelling) {
  Prompt shape = shape_of(prompt);
  if (shape.tools.empty() && shape.rules.json_schema.empty()) return nullptr;
  auto grammar = compiler_.compile(
      key_of(shape, spelling, Strength::kWhole),
      [shape, spelling] { return tag_of(shape, spelling, Strength::kWhole); },
      GrammarCompiler::kCompileMax);
  if (grammar) return grammar;
  tell_once(fmt::format("patterns and counts of a request's schemas are not enforced: {}",
                        grammar.error().message));
  grammar = compiler_.compile(
      key_of(shape, spelling, Strength::kSimpler),
      [shape, spelling] { return tag_of(shape, spelling, Strength::kSimpler); },
      kSimplerCompileMax);
  if (grammar) return grammar;
  // Each is fine alone, and they are too many or too long together, or others hold the compiler.
  log::warning("no schema of this request is enforced: {}", grammar.error().message);
  for (Tool& tool : shape.tools) tool.parameters = kAnyObject;
  if (!shape.rules.json_schema.empty()) shape.rules.json_schema = kAnyJson;
  try {
    return compiler_.compile_simple(structural_tag(shape, spelling, schema_format));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument, error.what());
  }
}

}  // namespace pensieve::engine
