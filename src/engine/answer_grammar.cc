#include "engine/answer_grammar.h"

#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "engine/native_text.h"
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

/// Texts one after the other, each with its length, so that no two lists of them share one.
class Key {
 public:
  void add(std::string_view part) {
    text_ += fmt::format(" {}:", part.size());
    text_ += part;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// All that tag_of() looks at.
std::string key_of(const Prompt& shape, const CallSpelling& spelling) {
  const AnswerRules& rules = shape.rules;
  Key key;
  key.add(fmt::format("{} {} {}", rules.parallel_calls, static_cast<int>(rules.tool_choice),
                      spelling.spaces_max));
  for (const std::string_view part :
       {std::string_view(rules.tool_name), spelling.begin, spelling.arguments, spelling.end}) {
    key.add(part);
  }
  key.add(rules.json_schema);
  for (const Tool& tool : shape.tools) {
    key.add(tool.name);
    key.add(tool.parameters);
  }
  return key.text();
}

/// All that native_tag_of() looks at: arguments of calls come from their schemas.
std::string key_of(const NativeForm& form, const NativeArguments& arguments,
                   const std::vector<NativeCall>& calls) {
  Key key;
  key.add("native");
  key.add(form.grammar);
  for (const std::string& mark : form.marks) key.add(mark);
  key.add(arguments.value_end);
  for (const NativeCall& call : calls) {
    key.add(call.tool);
    key.add(call.schema);
  }
  return key.text();
}

/// `schema` as xgrammar knows it. What is left out is told once.
std::string known_schema(const std::string& schema, SchemaPlace place, const std::string& what) {
  NormalizedSchema known = normalized_schema(schema, place, can_follow_pattern);
  for (const std::string& note : known.not_enforced) {
    tell_once(fmt::format("the schema of {} is not enforced in all it says: {}", what, note));
  }
  return std::move(known.schema);
}

std::string input_of(const std::string& tool) {
  return "the input of " + tool;
}

/// The grammar of `known`, or of what of it can be enforced.
std::string grammar_of(const std::string& known, SchemaPlace place, SchemaStrength strength,
                       int spaces_max, const std::string& what) {
  const auto attempt = [&](const std::string& schema) -> std::optional<std::string> {
    try {
      return schema_grammar(schema, spaces_max);
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      tell_once(
          fmt::format("the schema of {} is not enforced in all it says: {}", what, error.what()));
      return std::nullopt;
    }
  };
  if (strength == SchemaStrength::kWhole) {
    if (auto grammar = attempt(known)) return *std::move(grammar);
  }
  if (strength != SchemaStrength::kNone) {
    if (auto grammar = attempt(simpler_schema(known))) return *std::move(grammar);
    tell_once(fmt::format("the schema of {} is not enforced at all", what));
  }
  return schema_grammar(place == SchemaPlace::kToolInput ? kAnyObject : kAnyJson, spaces_max);
}

/// Throws xgrammar's errors.
std::string tag_of(Prompt shape, const CallSpelling& spelling, SchemaStrength strength) {
  std::map<std::pair<std::string, int>, std::string> formats;  // By schema and spaces.
  const auto add = [&](std::string& schema, SchemaPlace place, int spaces_max,
                       const std::string& what) {
    schema = known_schema(schema, place, what);
    formats[{schema, spaces_max}] =
        grammar_format(grammar_of(schema, place, strength, spaces_max, what));
  };
  AnswerRules& rules = shape.rules;
  for (Tool& tool : shape.tools) {
    if (rules.tool_choice == ToolChoice::kNone) break;
    if (rules.tool_choice == ToolChoice::kNamed && rules.tool_name != tool.name) continue;
    add(tool.parameters, SchemaPlace::kToolInput, spelling.spaces_max, input_of(tool.name));
  }
  if (!rules.json_schema.empty()) add(rules.json_schema, SchemaPlace::kAnswer, 0, "the answer");
  return structural_tag(shape, spelling, [&](std::string_view schema, int spaces_max) {
    return formats.at({std::string(schema), spaces_max});
  });
}

/// Throws xgrammar's errors, and those of with_calls().
std::string native_tag_of(const NativeForm& form, const NativeArguments& arguments,
                          const std::vector<NativeCall>& calls, SchemaStrength strength) {
  // Models of most forms write a space behind commas and colons, none of ours more.
  constexpr int kSpacesMax = 1;
  const auto place =
      arguments.form == ArgumentsForm::kObject ? SchemaPlace::kToolInput : SchemaPlace::kAnswer;
  const ValueGrammars values{
      .json =
          [place, strength](const NativeCall& call, const std::string& schema) {
            return grammar_of(schema, place, strength, kSpacesMax, input_of(call.tool));
          },
      .text =
          [strength](const std::string& schema, std::string_view end) {
            const std::string known = strength == SchemaStrength::kWhole ? schema
                                      : strength == SchemaStrength::kSimpler
                                          ? simpler_schema(schema)
                                          : std::string(kAnyJson);
            return native_text_grammar(known, end, pattern_grammar);
          },
  };
  const Result<NativeForm> written = with_calls(form, arguments, calls, values);
  if (!written) throw std::runtime_error(written.error().message);
  return native_tag(*written);
}

}  // namespace

Result<std::shared_ptr<const TokenGrammar>> AnswerGrammars::compile(const std::string& key,
                                                                    const TagOf& tag) {
  auto grammar = compiler_.compile(
      key + " whole", [tag] { return tag(SchemaStrength::kWhole); }, GrammarCompiler::kCompileMax);
  if (grammar) return grammar;
  tell_once(fmt::format("patterns and counts of a request's schemas are not enforced: {}",
                        grammar.error().message));
  grammar = compiler_.compile(
      key + " simpler", [tag] { return tag(SchemaStrength::kSimpler); }, kSimplerCompileMax);
  if (grammar) return grammar;
  // Each is fine alone, and they are too many or too long together, or others hold the compiler.
  log::warning("no schema of this request is enforced: {}", grammar.error().message);
  try {
    return compiler_.compile_simple(tag(SchemaStrength::kNone));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument, error.what());
  }
}

Result<std::shared_ptr<const TokenGrammar>> AnswerGrammars::of(const Prompt& prompt,
                                                               const CallSpelling& spelling) {
  Prompt shape = shape_of(prompt);
  if (shape.tools.empty() && shape.rules.json_schema.empty()) return nullptr;
  const std::string key = key_of(shape, spelling);
  return compile(key, [shape = std::move(shape), spelling](SchemaStrength strength) {
    return tag_of(shape, spelling, strength);
  });
}

std::vector<Tool> AnswerGrammars::known(std::vector<Tool> tools) {
  for (Tool& tool : tools) {
    tool.parameters = known_schema(tool.parameters, SchemaPlace::kToolInput, input_of(tool.name));
  }
  return tools;
}

Result<std::shared_ptr<const TokenGrammar>> AnswerGrammars::of_native(
    const NativeForm& form, const NativeArguments& arguments,
    const std::vector<NativeCall>& calls) {
  return compile(key_of(form, arguments, calls), [form, arguments, calls](SchemaStrength strength) {
    return native_tag_of(form, arguments, calls, strength);
  });
}

}  // namespace pensieve::engine
