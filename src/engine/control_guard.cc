#include "engine/control_guard.h"

#include <charconv>
#include <system_error>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"

namespace pensieve::engine {
namespace {

// For private use (U+E0F1 to U+E0F3): in no model's templates.
constexpr std::string_view kMarkOpen = "\xEE\x83\xB1";
constexpr std::string_view kMarkLonger = "\xEE\x83\xB2";
constexpr std::string_view kMarkClose = "\xEE\x83\xB3";

template <class Act>
void for_each_text(Prompt& prompt, const Act& act) {
  for (Message& message : prompt.messages) {
    act(message.text);
    act(message.thinking);
    act(message.tool_name);
    for (ToolCall& call : message.calls) {
      act(call.name);
      act(call.arguments);
    }
  }
  for (Tool& tool : prompt.tools) {
    act(tool.name);
    act(tool.description);
    act(tool.parameters);
  }
}

std::size_t find_control(std::string_view text, const ControlTexts& control, std::size_t from) {
  for (std::size_t i = from; i < text.size(); ++i) {
    if (control.match(text.substr(i)) > 0) return i;
  }
  return std::string_view::npos;
}

std::string mark_for(GuardedPrompt& guarded, Hidden hidden) {
  guarded.hidden.push_back(std::move(hidden));
  return fmt::format("{}{}{}", guarded.open, guarded.hidden.size() - 1, kMarkClose);
}

void hide_controls(std::string& text, const ControlTexts& control, GuardedPrompt& guarded) {
  std::size_t at = find_control(text, control, 0);
  if (at == std::string_view::npos) return;
  std::string safe;
  std::size_t done = 0;
  for (; at != std::string_view::npos; at = find_control(text, control, done)) {
    safe.append(text, done, at - done);
    const std::size_t length = control.match(std::string_view(text).substr(at));
    safe += mark_for(guarded, {text.substr(at, length)});
    done = at + length;
  }
  safe.append(text, done);
  text = std::move(safe);
}

/// From the last to the first: what is put in must not move the places that are to come.
void hide_images(const std::vector<Image>& images, Message& message, GuardedPrompt& guarded) {
  for (auto image = images.rbegin(); image != images.rend(); ++image) {
    PENSIEVE_CHECK(image->at <= message.text.size());
    message.text.insert(image->at, mark_for(guarded, {{}, &*image}));
  }
  message.images.clear();
}

}  // namespace

void ControlTexts::add(std::string_view text) {
  if (text.empty()) return;
  texts_.insert(text);
  lengths_.insert(text.size());
  is_first_[static_cast<unsigned char>(text[0])] = true;
}

std::size_t ControlTexts::match(std::string_view text) const {
  if (text.empty() || !is_first_[static_cast<unsigned char>(text[0])]) return 0;
  for (std::size_t length : lengths_) {
    if (length <= text.size() && texts_.contains(text.substr(0, length))) return length;
  }
  return 0;
}

GuardedPrompt guard(const Prompt& prompt, const ControlTexts& control) {
  GuardedPrompt guarded{prompt, std::string(kMarkOpen), {}};
  for_each_text(guarded.prompt, [&](const std::string& text) {
    while (text.find(guarded.open) != std::string::npos) guarded.open += kMarkLonger;
  });
  for (std::size_t i = 0; i < prompt.messages.size(); ++i) {
    hide_images(prompt.messages[i].images, guarded.prompt.messages[i], guarded);
  }
  for_each_text(guarded.prompt, [&](std::string& text) { hide_controls(text, control, guarded); });
  return guarded;
}

std::optional<GuardMark> next_mark(std::string_view text, const GuardedPrompt& guarded) {
  if (guarded.hidden.empty()) return std::nullopt;
  GuardMark mark{.at = text.find(guarded.open)};
  if (mark.at == std::string_view::npos) return std::nullopt;
  const char* const digits = text.data() + mark.at + guarded.open.size();
  const auto [end, error] = std::from_chars(digits, text.data() + text.size(), mark.index);
  // Only guard() writes marks, and templates copy texts whole.
  PENSIEVE_CHECK(error == std::errc() && mark.index < guarded.hidden.size());
  mark.length = static_cast<std::size_t>(end - (text.data() + mark.at)) + kMarkClose.size();
  return mark;
}

}  // namespace pensieve::engine
