#include "engine/prompt_forms.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

namespace pensieve::engine {
namespace {

// For private use (U+E0F4, U+E0F5): in no model's templates.
constexpr std::string_view kMarkBegin = "\xEE\x83\xB4";
constexpr std::string_view kMarkEnd = "\xEE\x83\xB5";

/// How often `unit` stands in `text` without anything in between, at most.
std::size_t longest_run(std::string_view text, std::string_view unit) {
  std::size_t longest = 0;
  for (std::size_t at = text.find(unit); at != std::string_view::npos; at = text.find(unit, at)) {
    std::size_t run = 0;
    for (; text.substr(at).starts_with(unit); at += unit.size()) ++run;
    longest = std::max(longest, run);
  }
  return longest;
}

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

void shorten_ids(std::vector<Message>& messages) {
  for (Message& message : messages) {
    for (ToolCall& call : message.calls) call.id = short_id(call.id);
    if (!message.tool_call_id.empty()) message.tool_call_id = short_id(message.tool_call_id);
  }
}

/// Takes the results of the calls from `results`, and gives what belongs to no call back last.
void append_single_calls(const Message& turn, std::vector<Message> results,
                         std::vector<Message>& out) {
  for (std::size_t i = 0; i < turn.calls.size(); ++i) {
    Message single{.role = Role::kAssistant};
    if (i == 0) {
      single.text = turn.text;
      single.thinking = turn.thinking;
    }
    single.calls = {turn.calls[i]};
    out.push_back(std::move(single));
    const auto result = std::find_if(results.begin(), results.end(), [&](const Message& message) {
      return message.tool_call_id == turn.calls[i].id;
    });
    if (result == results.end()) continue;
    out.push_back(std::move(*result));
    results.erase(result);
  }
  for (Message& result : results) out.push_back(std::move(result));
}

/// One call a turn, and its result behind it.
std::vector<Message> with_single_calls(const std::vector<Message>& messages) {
  std::vector<Message> out;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].calls.size() < 2) {
      out.push_back(messages[i]);
      continue;
    }
    const std::size_t turn = i;
    std::vector<Message> results;
    while (i + 1 < messages.size() && messages[i + 1].role == Role::kTool) {
      results.push_back(messages[++i]);
    }
    append_single_calls(messages[turn], std::move(results), out);
  }
  return out;
}

/// Text that the user sent along with results ends the last of them, marked as the user's: what a
/// tool says has less weight.
std::vector<Message> with_joined_results(const std::vector<Message>& messages) {
  std::vector<Message> out;
  for (const Message& message : messages) {
    const bool joins =
        message.role == Role::kUser && !out.empty() && out.back().role == Role::kTool;
    if (!joins) {
      out.push_back(message);
    } else if (!message.text.empty()) {
      append_paragraph(out.back().text, "<user>\n" + message.text + "\n</user>");
    }
  }
  return out;
}

std::vector<Message> with_apart_texts(const std::vector<Message>& messages, bool empty_turns) {
  std::vector<Message> out;
  for (const Message& message : messages) {
    if (message.calls.empty() || message.text.empty()) {
      out.push_back(message);
      continue;
    }
    out.push_back({.role = Role::kAssistant, .text = message.text, .thinking = message.thinking});
    if (empty_turns) out.push_back({Role::kUser, {}});
    Message call = message;
    call.text.clear();
    call.thinking.clear();
    out.push_back(std::move(call));
  }
  return out;
}

Prompt adapted(Prompt form, const TemplateNeeds& needs) {
  if (needs.single_calls) form.messages = with_single_calls(form.messages);
  if (needs.joined_results) form.messages = with_joined_results(form.messages);
  if (needs.apart_texts) form.messages = with_apart_texts(form.messages, needs.empty_turns);
  if (needs.short_ids) shorten_ids(form.messages);
  return form;
}

}  // namespace

Prompt without_thoughts(const Prompt& prompt) {
  Prompt said = prompt;
  for (Message& message : said.messages) message.thinking.clear();
  return said;
}

ThoughtMarks unused_marks(const Prompt& prompt) {
  std::size_t run = 0;
  const auto look_at = [&run](std::string_view text) {
    run = std::max({run, longest_run(text, kMarkBegin), longest_run(text, kMarkEnd)});
  };
  for (const Message& message : prompt.messages) {
    look_at(message.text);
    look_at(message.thinking);
    look_at(message.tool_name);
    for (const ToolCall& call : message.calls) {
      look_at(call.id);
      look_at(call.name);
      look_at(call.arguments);
    }
  }
  for (const Tool& tool : prompt.tools) {
    look_at(tool.name);
    look_at(tool.description);
    look_at(tool.parameters);
  }
  ThoughtMarks marks;
  for (std::size_t i = 0; i <= run; ++i) {
    marks.begin += kMarkBegin;
    marks.end += kMarkEnd;
  }
  return marks;
}

Prompt with_thoughts_as_text(const Prompt& prompt, const ThoughtMarks& marks) {
  Prompt said = prompt;
  for (std::size_t i = 0; i < said.messages.size(); ++i) {
    Message& message = said.messages[i];
    const bool is_open = prompt.continues_last && i + 1 == said.messages.size();
    if (message.thinking.empty() || is_open) continue;
    std::string text = marks.begin + "\n" + message.thinking + "\n" + marks.end;
    if (!message.text.empty()) text += "\n\n" + message.text;
    message.text = std::move(text);
    message.thinking.clear();
  }
  return said;
}

std::string short_id(std::string_view id) {
  // FNV-1a, 64 bits: a hash that is the same in every build and on every machine.
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string text(9, '0');
  for (char& digit : text) {
    digit = kDigits[hash % kDigits.size()];
    hash /= kDigits.size();
  }
  return text;
}

std::vector<Prompt> prompt_forms(const Prompt& prompt, const TemplateNeeds& needs) {
  return {adapted(prompt, needs), adapted(alternating(prompt, true), needs),
          adapted(alternating(prompt, false), needs)};
}

}  // namespace pensieve::engine
