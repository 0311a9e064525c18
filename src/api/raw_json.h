// The original bytes of values inside a JSON text. What a model will see must not pass through
// Boost.JSON's printer, which writes 1.0 as 1E0.
//
// REQUIRES, where nothing else is said: parse_json() has accepted the whole text. Nothing here
// recurses.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pensieve::api {

/// The elements of the array that `text` is, in order, without space around them. Empty where
/// `text` is not an array.
std::vector<std::string_view> raw_elements(std::string_view text);

/// The value of `key` in the object that `text` is; of duplicates the last, as parse_json() has it.
/// Empty where there is none or `text` is not an object.
std::string_view raw_member(std::string_view text, std::string_view key);

/// One spelling per value: no space between tokens, strings with the fewest escapes, numbers and
/// the order of members as they were written.
std::string compact_json(std::string_view text);

/// Puts U+FFFD in place of each escape in `text` that is half of a character: clients in JavaScript
/// cut strings there, and a conversation with such a string must not end. Any text; its length and
/// all else stay.
void replace_lone_surrogates(std::string& text);

}  // namespace pensieve::api
