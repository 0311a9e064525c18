// A schema that compiles fast: what it says of kinds, names and choices alone. Pure.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::engine {

/// `normalized` (schema_normalize.h) without patterns, formats, and counts beyond a few: those are
/// what makes a grammar large. Everything that was valid still is.
std::string simpler_schema(std::string_view normalized);

}  // namespace pensieve::engine
