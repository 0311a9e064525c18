// What a reference inside a JSON schema points at. Pure.
#pragma once

#include <string_view>

#include <boost/json.hpp>

namespace pensieve::engine {

/// The value in `root` that `reference` (a JSON pointer in a URI: "#/$defs/a~1b") leads to. Null
/// where there is nothing, and for what is elsewhere. Lives as long as `root`.
const boost::json::value* target_of(const boost::json::value& root, std::string_view reference);

}  // namespace pensieve::engine
