// What the simulated model reads and says: pure functions, so that a client knows the whole answer
// to its question beforehand and can tell one that was cut, mixed up or made longer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include "engine/engine.h"

namespace pensieve::sim {

inline constexpr engine::Token kEndToken = 0;
/// The mean length of an answer that no limit cuts.
inline constexpr std::uint64_t kMeanAnswerTokens = 48;

/// FNV-1a over tokens.
class Speech {
 public:
  void hear(engine::Token token) {
    hash_ = (hash_ ^ static_cast<std::uint64_t>(token)) * 1099511628211U;
  }
  engine::Token next() const {
    if ((hash_ >> 40) % kMeanAnswerTokens == 0) return kEndToken;
    return 1000 + static_cast<engine::Token>((hash_ >> 20) % 9000);
  }

 private:
  std::uint64_t hash_ = 14695981039346656037U;
};

inline engine::Token next_token(const std::vector<engine::Token>& tokens) {
  Speech speech;
  for (const engine::Token token : tokens) speech.hear(token);
  return speech.next();
}

/// One token a word, and one for whose turn it is.
inline std::vector<engine::Token> tokens_of(const engine::Prompt& prompt) {
  std::vector<engine::Token> tokens;
  for (const engine::Message& message : prompt.messages) {
    tokens.push_back(10 + static_cast<engine::Token>(message.role));
    Speech word;
    for (const char letter : message.text) {
      if (letter != ' ') {
        word.hear(letter);
        continue;
      }
      tokens.push_back(word.next() + 10'000);
      word = Speech();
    }
    tokens.push_back(word.next() + 10'000);
  }
  return tokens;
}

inline std::string piece_of(engine::Token token) {
  return fmt::format("{} ", token);
}

struct Answer {
  std::string text;
  bool reaches_limit = false;  // Cut at output_tokens_max.
};

inline Answer answer_to(const engine::Prompt& prompt, std::uint32_t output_tokens_max) {
  Speech speech;
  for (const engine::Token token : tokens_of(prompt)) speech.hear(token);
  Answer answer;
  for (std::uint32_t count = 0; count < output_tokens_max; ++count) {
    const engine::Token token = speech.next();
    if (token == kEndToken) return answer;
    answer.text += piece_of(token);
    speech.hear(token);
  }
  answer.reaches_limit = true;
  return answer;
}

}  // namespace pensieve::sim
