// The keywords of one schema in the way that xgrammar reads them. Pure.
#pragma once

#include <functional>
#include <string_view>

#include <boost/json.hpp>

#include "engine/schema_merge.h"
#include "engine/schema_normalize.h"

namespace pensieve::engine {

struct KeywordWriter {
  /// Writes a schema that stands in this one; `step` is the way to it ("/properties/a").
  std::function<boost::json::value(std::string_view step, const boost::json::value& schema)> write;
  SchemaNote note;
  const CanFollowPattern& can_follow;
};

/// `simple` has no anyOf, oneOf, allOf and $ref. What is not written is told to `note`.
boost::json::object written_keywords(const boost::json::object& simple,
                                     const KeywordWriter& writer);

}  // namespace pensieve::engine
