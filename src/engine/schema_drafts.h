// Older drafts of JSON Schema in the words of the newest. Pure.
#pragma once

#include <boost/json.hpp>

namespace pensieve::engine {

/// Rewrites the keywords of this one schema, not of those in it: draft 4's boolean
/// exclusiveMinimum, draft 7's `items` with a list, `additionalItems` and `dependencies`, and
/// counts that are written as fractions (24.0).
void modernize(boost::json::object& schema);

}  // namespace pensieve::engine
