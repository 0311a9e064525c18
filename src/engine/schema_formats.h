// String formats of JSON schemas as patterns that a grammar can follow to an end.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::engine {

/// `schema` with the formats date, time, date-time, duration, email, hostname and ipv4 written as
/// patterns, where a string has no pattern of its own. Whatever matches is of the format, and ends:
/// xgrammar's own patterns know a 31st of February, and addresses without an end, which a small
/// model goes on writing until it is stopped. In every pattern "(...)?" becomes "(...){0,1}", which
/// means the same and which xgrammar reads right. What is no JSON comes back as it is.
///
/// What is valid and rare is not offered: leap seconds, quoted local parts of mail addresses.
std::string with_bounded_formats(std::string_view schema);

}  // namespace pensieve::engine
