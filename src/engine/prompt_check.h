// Whether a chat template showed all of a conversation. Pure.
#pragma once

#include <string_view>

#include "engine/prompt.h"

namespace pensieve::engine {

/// Whether the texts of `form`, and the texts in the arguments of its calls, stand in `rendered`,
/// message behind message; arguments as they are or as JSON writes them. Thoughts are not looked
/// for: most templates drop those of earlier turns.
bool keeps_all(const Prompt& form, std::string_view rendered);

/// The same conversation with a word of its own for each text, and one such argument for each call:
/// what of it is not in the rendering was left out, and not merely written in another way. Tools
/// keep their names only.
Prompt with_words(const Prompt& form);

}  // namespace pensieve::engine
