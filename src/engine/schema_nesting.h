// Schemas that contain themselves, with an end. Pure.
#pragma once

#include <boost/json.hpp>

namespace pensieve::engine {

/// How often a schema may contain itself in what is generated. Choice: deeper than what tools are
/// asked for; a small model repeats itself until its tokens are used up.
inline constexpr int kNestingMax = 8;

/// Definitions that are written anew for each level; beyond that nothing has an end.
inline constexpr std::size_t kLeveledMax = 128;

/// `schema`, whose references all lead to `#/$defs/NAME`, with a copy of each definition that
/// contains itself for each level down to kNestingMax. On the last one the properties, items and
/// branches that would go on are left out. Returned as it is where it needs no such thing, where
/// nothing would be left of it, and beyond kLeveledMax.
boost::json::value with_bounded_nesting(const boost::json::value& schema);

}  // namespace pensieve::engine
