// Other ways to say one conversation, for chat templates that refuse the canonical one. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace pensieve::engine {

/// What a template cannot show of a conversation with calls, and gets said in another way.
struct TemplateNeeds {
  bool short_ids = false;       // Ids of calls have nine letters and digits (Mistral).
  bool single_calls = false;    // A turn has one call at most, and its result follows.
  bool joined_results = false;  // No user's turn may follow a result: its text ends the result.
  bool apart_texts = false;     // Text beside a call is lost: it is a turn of its own before it.
  bool empty_turns = false;     // Between those two, the user has an empty turn.
  bool text_thoughts = false;   // Thoughts of earlier turns are lost: with_thoughts_as_text().
  bool no_thoughts = false;     // Text beside thoughts is lost: without_thoughts().
};

/// The forms of `prompt` to try, best first; nothing of its text is missing in any of them.
/// 1. As it is. 2. The first system message leads, later ones are folded into the user's turn next
/// to them as <system-reminder>, turns alternate and the user's comes first. 3. The same without
/// the system role: its text opens the first user turn. All of them as `needs` has it, but for
/// thoughts.
std::vector<Prompt> prompt_forms(const Prompt& prompt, const TemplateNeeds& needs = {});

Prompt without_thoughts(const Prompt& prompt);

/// What stands for the beginning and the end of thoughts in a text.
struct ThoughtMarks {
  std::string begin;
  std::string end;
};

/// Marks that occur nowhere in `prompt`, so that nobody who writes one means thoughts.
ThoughtMarks unused_marks(const Prompt& prompt);

/// The thoughts of turns that are over, in front of their texts between `marks` and line breaks, as
/// models write them: for templates that would leave them out.
Prompt with_thoughts_as_text(const Prompt& prompt, const ThoughtMarks& marks);

/// Nine letters and digits for an id of any form; the same ones for the same id, always.
std::string short_id(std::string_view id);

}  // namespace pensieve::engine
