// Numbers that JSON allows and that libraries of others refuse. Pure.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::engine {

/// `json` with the greatest finite double of its sign in the place of each number that is greater
/// (1e400); all else as it is. llama-common's JSON throws at such a number, and keeps no number's
/// text. REQUIRES: JSON; other text may lose such numbers too.
std::string with_finite_numbers(std::string_view json);

}  // namespace pensieve::engine
