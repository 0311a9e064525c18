// Strings that stand in a call as they are, between marks, as grammars. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace pensieve::engine {

/// The grammar of what a pattern matches as a whole; may throw.
using PatternGrammar = std::function<std::string(std::string_view pattern)>;

/// The grammar of strings that keep `schema` (of strings alone, in the form of
/// schema_normalize.h), in front of `end`, which none of them contains. A string with a greatest
/// length does not contain the first character of `end` either: it could not be counted otherwise.
std::string native_text_grammar(std::string_view schema, std::string_view end,
                                const PatternGrammar& pattern_grammar);

}  // namespace pensieve::engine
