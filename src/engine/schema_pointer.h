// JSON schemas as values: reading them, and what a reference inside points at. Pure.
#pragma once

#include <optional>
#include <string_view>

#include <boost/json.hpp>

namespace pensieve::engine {

/// A schema in the form of schema_normalize.h. Nothing where it is no JSON, or too deep for one.
std::optional<boost::json::value> parsed_schema(std::string_view normalized);

/// The value in `root` that `reference` (a JSON pointer in a URI: "#/$defs/a~1b") leads to. Null
/// where there is nothing, and for what is elsewhere. Lives as long as `root`.
const boost::json::value* target_of(const boost::json::value& root, std::string_view reference);

}  // namespace pensieve::engine
