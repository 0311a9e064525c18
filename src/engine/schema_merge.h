// What two JSON schemas say together, and what sets them apart. Pure.
//
// All schemas here are simple: without anyOf, oneOf, allOf, $ref, not and if.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include <boost/json.hpp>

namespace pensieve::engine {

/// Is told what of a schema is not enforced, in words.
using SchemaNote = std::function<void(std::string_view)>;

/// What is valid for both. Schemas of the same property come back as an allOf. Empty where nothing
/// is valid for both. `note` gets what cannot be said in one schema.
std::optional<boost::json::object> merged(const boost::json::object& one,
                                          const boost::json::object& other, const SchemaNote& note);

/// `schema` with less that is valid, none of it valid for `other`. Empty where no way to say so is
/// known.
std::optional<boost::json::object> without(const boost::json::object& schema,
                                           const boost::json::object& other);

/// The values of a const or an enum. Empty where the schema lists none.
std::optional<boost::json::array> listed_values(const boost::json::object& schema);

/// Whether a value keeps the type, the lengths and the bounds of `schema`; of others it may not.
bool may_be_valid(const boost::json::value& value, const boost::json::object& schema);

/// The types that a schema names or, where it names none, the one that its keywords are about.
/// Empty where any type is right.
boost::json::array types_of(const boost::json::object& schema);

bool requires_name(const boost::json::object& schema, std::string_view name);

/// A property that may not be there.
bool is_false(const boost::json::value& schema);

}  // namespace pensieve::engine
