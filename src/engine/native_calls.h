// What a template's own form of calls has to say of tools: names, arguments, and schemas of values.
// Stand-ins of tools and arguments have short names, so that they are found again in a grammar.
// Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/prompt.h"

namespace pensieve::engine {

/// How a form writes arguments.
enum class ArgumentsForm : std::uint8_t {
  kUnknown,  // In a way of its own, which only llama-common's grammar knows.
  kObject,   // As one JSON object.
  kTagged,   // One by one, between marks; a string as it is.
};

struct NativeArguments {
  ArgumentsForm form = ArgumentsForm::kUnknown;
  std::string value_end = {};  // kTagged: what closes a value.
  bool limits_text = false;    // kTagged: strings may keep a schema.
};

/// One argument of kTagged.
struct TaggedArgument {
  enum class Kind : std::uint8_t {
    kAnyText,  // A string of any kind, as it is.
    kText,     // A string that keeps `schema`, as it is.
    kJson,     // JSON that keeps `schema`.
  };
  std::string name;
  bool is_required = false;
  Kind kind = Kind::kAnyText;
  std::string schema;
};

/// One way to call a tool: of a schema that is a choice, one branch.
struct NativeCall {
  std::string tool;
  std::string schema;                          // Of all arguments.
  std::vector<TaggedArgument> arguments = {};  // kTagged.
};

/// Most ways to call a request's tools; more are not told apart.
inline constexpr std::size_t kNativeCallsMax = 1'024;
/// Most arguments of one call in tags.
inline constexpr std::size_t kTaggedArgumentsMax = 1'024;

/// The calls of `tools`, whose parameters are in the form of schema_normalize.h. Empty where there
/// are too many, or where a schema is of no object.
std::vector<NativeCall> native_calls(const std::vector<Tool>& tools,
                                     const NativeArguments& arguments);

/// What names of tools' stand-ins begin with.
inline constexpr std::string_view kToolStandIn = "zqxt";
/// All have the same length, and none is a part of another. REQUIRES: i < 10,000.
std::string tool_stand_in(std::size_t i);
std::string argument_stand_in(std::size_t i);

/// What llama-common is asked for the form of `calls`.
std::vector<Tool> stand_ins(const std::vector<NativeCall>& calls);

/// Tools of the same names and kinds of arguments as `calls`, for reading what was generated.
std::vector<Tool> tools_to_read(const std::vector<NativeCall>& calls);

}  // namespace pensieve::engine
