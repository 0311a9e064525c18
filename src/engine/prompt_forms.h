// Other ways to say one conversation, for chat templates that refuse the canonical one. Pure.
#pragma once

#include <vector>

#include "engine/engine.h"

namespace pensieve::engine {

/// The forms of `prompt` to try, best first; nothing of its text is missing in any of them.
/// 1. As it is. 2. The first system message leads, later ones are folded into the user's turn next
/// to them as <system-reminder>, turns alternate and the user's comes first. 3. The same without
/// the system role: its text opens the first user turn.
std::vector<Prompt> prompt_forms(const Prompt& prompt);

}  // namespace pensieve::engine
