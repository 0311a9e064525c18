// Keeps text that merely looks like a control token from becoming one: a message must not be able
// to end its own turn. Pure, but for the vocabulary's texts.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "engine/prompt.h"

namespace pensieve::engine {

/// Finds the texts of control tokens. Ownership: borrows the texts that are added.
class ControlTexts {
 public:
  void add(std::string_view text);

  /// The length of the longest control text that `text` begins with; 0 where there is none.
  std::size_t match(std::string_view text) const;

 private:
  std::unordered_set<std::string_view> texts_;
  std::set<std::size_t, std::greater<>> lengths_;
  std::array<bool, 256> is_first_{};
};

/// What a mark stands for: a text, or a picture.
struct Hidden {
  std::string text;
  const Image* image = nullptr;
};

/// A prompt whose control texts and images are replaced by marks, and what each mark stands for. A
/// mark is `open`, the index into `hidden` in decimal, and a closing character: templates put texts
/// in any order, and may leave some out.
struct GuardedPrompt {
  Prompt prompt;
  std::string open;  // Occurs in no text of the original prompt.
  std::vector<Hidden> hidden;
};

/// Hides the control texts in everything that a client wrote: messages, calls, results, tools; and
/// puts marks where images stand. Ownership: the images stay those of `prompt`.
GuardedPrompt guard(const Prompt& prompt, const ControlTexts& control);

struct GuardMark {
  std::size_t at = 0;
  std::size_t length = 0;
  std::size_t index = 0;  // Into GuardedPrompt::hidden.
};

/// The first mark in a text that was rendered from the guarded prompt.
std::optional<GuardMark> next_mark(std::string_view text, const GuardedPrompt& guarded);

}  // namespace pensieve::engine
