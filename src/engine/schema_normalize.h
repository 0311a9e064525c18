// JSON schemas of any draft, written so that xgrammar keeps what they say. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace pensieve::engine {

struct NormalizedSchema {
  std::string schema;
  /// What is not enforced, each in words and with its place: "`not` at /properties/size".
  std::vector<std::string> not_enforced;
};

enum class SchemaPlace : std::uint8_t { kAnswer, kToolInput };

/// Whether a grammar can follow this pattern of a string.
using CanFollowPattern = std::function<bool(std::string_view pattern)>;

/// Nodes of one schema that are written; what is beyond becomes any JSON.
inline constexpr std::size_t kSchemaNodesMax = 20'000;
/// Schemas in schemas, references that had to be written out included.
inline constexpr int kSchemaDepthMax = 200;
/// Alternatives that one schema is multiplied into, where anyOf, oneOf and allOf stand together.
inline constexpr std::size_t kAlternativesMax = 256;
/// Longest string and list whose length is enforced. Choice: a grammar counts in steps, and a
/// model that writes more than that has seldom a limit in mind.
inline constexpr std::int64_t kCountedMax = 4'096;

/// `schema` with the same meaning or a narrower one, in what xgrammar understands: references,
/// anyOf, type, const, enum, and the keywords of one type. anyOf, oneOf and allOf are merged with
/// what stands beside them, older drafts' forms are written in today's, names that are required
/// get a property, and a tool's input is an object. Only what cannot be said is left out, there
/// alone, and told in `not_enforced`. What is no JSON becomes any JSON.
NormalizedSchema normalized_schema(std::string_view schema, SchemaPlace place,
                                   const CanFollowPattern& can_follow);

}  // namespace pensieve::engine
