#include "worker/prompt_limit.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

namespace pensieve::worker {
namespace {

constexpr std::uint64_t kUsualBytesPerToken = 4;

/// The first piece of `text`: at most `bytes_max`, up to a space where there is one in its second
/// half, never inside a UTF-8 character.
std::string_view first_piece(std::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  const std::size_t space = text.find_last_of(" \n", bytes_max);
  if (space != std::string_view::npos && space > bytes_max / 2) return text.substr(0, space);
  std::size_t end = bytes_max;
  while (end > bytes_max - 3 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end);
}

}  // namespace

std::uint64_t text_bytes(const engine::Prompt& prompt) {
  std::uint64_t bytes = 0;
  for (const engine::Message& message : prompt.messages) bytes += message.text.size();
  return bytes;
}

std::optional<std::string> too_long(std::uint64_t prompt_bytes, std::uint32_t context_tokens,
                                    std::uint64_t times) {
  if (prompt_bytes <= times * engine::prompt_bytes_max(context_tokens)) return std::nullopt;
  return fmt::format("prompt is too long: {} tokens > {} maximum",
                     prompt_bytes / kUsualBytesPerToken, context_tokens - 1);
}

Result<std::uint64_t> count_tokens(const engine::Engine& engine, const engine::Prompt& prompt,
                                   std::uint32_t context_tokens,
                                   const std::function<void()>& between) {
  const std::uint64_t bytes = text_bytes(prompt);
  if (auto problem = too_long(bytes, context_tokens, kCountedPromptsMax)) {
    return fail(Code::kInvalidArgument, std::move(*problem));
  }
  if (!too_long(bytes, context_tokens)) {
    const Result<std::vector<engine::Token>> tokens = engine.tokenize(prompt);
    if (!tokens) return std::unexpected(tokens.error());
    return tokens->size();
  }
  const std::size_t piece_bytes = engine::prompt_bytes_max(context_tokens) / 2;
  std::uint64_t count = 0;
  for (const engine::Message& message : prompt.messages) {
    std::string_view rest = message.text;
    do {
      const std::string_view piece = first_piece(rest, piece_bytes);
      rest.remove_prefix(piece.size());
      const engine::Prompt part{.messages = {{message.role, std::string(piece)}}};
      const Result<std::vector<engine::Token>> tokens = engine.tokenize(part);
      if (!tokens) return std::unexpected(tokens.error());
      count += tokens->size();
      between();
    } while (!rest.empty());
  }
  return count;
}

}  // namespace pensieve::worker
