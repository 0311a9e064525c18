#include "engine/prompt_forms.h"

#include <string_view>

namespace pensieve::engine {
namespace {

void append_paragraph(std::string& text, std::string_view more) {
  if (!text.empty() && !more.empty()) text += '\n';
  text += more;
}

/// Adds to the last turn where the role is the same, else begins one. Calls and results stay what
/// they are.
void append_turn(std::vector<Message>& turns, const Message& message) {
  const bool is_text = message.role != Role::kTool && message.calls.empty();
  if (is_text && !turns.empty() && turns.back().role == message.role &&
      turns.back().calls.empty()) {
    append_paragraph(turns.back().text, message.text);
  } else {
    turns.push_back(message);
  }
}

/// User and assistant in turn, the user first.
Prompt alternating(const Prompt& prompt, bool keeps_system) {
  std::string system;
  std::size_t first = 0;
  for (; first < prompt.messages.size() && prompt.messages[first].role == Role::kSystem; ++first) {
    append_paragraph(system, prompt.messages[first].text);
  }
  std::vector<Message> turns;
  for (std::size_t i = first; i < prompt.messages.size(); ++i) {
    const Message& message = prompt.messages[i];
    if (message.role != Role::kSystem) {
      // Empty rather than words of ours: the template wants a user's turn, and there was none.
      if (turns.empty() && message.role == Role::kAssistant) turns.push_back({Role::kUser, {}});
      append_turn(turns, message);
      continue;
    }
    append_turn(turns,
                {Role::kUser, "<system-reminder>\n" + message.text + "\n</system-reminder>"});
  }

  Prompt form = prompt;
  form.messages.clear();
  if (!system.empty()) {
    if (turns.empty()) {
      turns.push_back({Role::kUser, std::move(system)});
    } else if (keeps_system) {
      form.messages.push_back({Role::kSystem, std::move(system)});
    } else {
      append_paragraph(system, turns.front().text);
      turns.front().text = std::move(system);
    }
  }
  for (Message& turn : turns) form.messages.push_back(std::move(turn));
  return form;
}

}  // namespace

std::vector<Prompt> prompt_forms(const Prompt& prompt) {
  return {prompt, alternating(prompt, true), alternating(prompt, false)};
}

}  // namespace pensieve::engine
