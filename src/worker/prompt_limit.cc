#include "worker/prompt_limit.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "worker/embed_messages.h"

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

/// Everything that a template may show: of tools, those that are.
template <class Act>
void for_each_text(const engine::Prompt& prompt, const Act& act) {
  for (const engine::Tool& tool : prompt.tools) {
    if (!tool.shown) continue;
    act(engine::Role::kSystem, tool.name);
    act(engine::Role::kSystem, tool.description);
    act(engine::Role::kSystem, tool.parameters);
  }
  for (const engine::Message& message : prompt.messages) {
    act(message.role, message.text);
    act(message.role, message.thinking);
    for (const engine::ToolCall& call : message.calls) {
      act(message.role, call.name);
      act(message.role, call.arguments);
    }
  }
}

}  // namespace

std::uint64_t text_bytes(const engine::Prompt& prompt) {
  std::uint64_t bytes = 0;
  for_each_text(prompt, [&bytes](engine::Role, std::string_view text) { bytes += text.size(); });
  return bytes;
}

std::optional<std::string> too_long(std::uint64_t prompt_bytes, std::uint32_t context_tokens,
                                    std::uint64_t times) {
  if (prompt_bytes <= times * engine::prompt_bytes_max(context_tokens)) return std::nullopt;
  return fmt::format("prompt is too long: {} tokens > {} maximum",
                     prompt_bytes / kUsualBytesPerToken, context_tokens - 1);
}

std::string too_long_to_embed(std::uint64_t tokens, std::uint32_t context_tokens) {
  return fmt::format("input is too long: {} tokens > {} maximum", tokens, context_tokens);
}

Result<std::vector<engine::Token>> tokens_to_embed(const engine::Engine& engine,
                                                   std::string_view payload,
                                                   std::uint32_t context_tokens) {
  Result<EmbedRequest> request = decode_embed_request(payload);
  if (!request) return std::unexpected(request.error());
  Result<std::vector<engine::Token>> tokens = std::move(request->tokens);
  if (tokens->empty()) {
    if (too_long(request->text.size(), context_tokens)) {
      return fail(Code::kInvalidArgument,
                  too_long_to_embed(request->text.size() / kUsualBytesPerToken, context_tokens));
    }
    tokens = engine.tokenize_text(request->text);
    if (!tokens) return tokens;
  }
  if (tokens->empty()) return fail(Code::kInvalidArgument, "an input has no tokens");
  if (tokens->size() > context_tokens) {
    return fail(Code::kInvalidArgument, too_long_to_embed(tokens->size(), context_tokens));
  }
  return tokens;
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
  std::optional<Error> problem;
  for_each_text(prompt, [&](engine::Role role, std::string_view rest) {
    // A text of a tool's result is counted as the user's: a result needs its call.
    const engine::Role teller = role == engine::Role::kTool ? engine::Role::kUser : role;
    while (!rest.empty() && !problem) {
      const std::string_view piece = first_piece(rest, piece_bytes);
      rest.remove_prefix(piece.size());
      const engine::Prompt part{.messages = {{teller, std::string(piece)}}};
      const Result<std::vector<engine::Token>> tokens = engine.tokenize(part);
      if (!tokens) {
        problem = tokens.error();
      } else {
        count += tokens->size();
      }
      between();
    }
  });
  for (const engine::Message& message : prompt.messages) {
    for (const engine::Image& image : message.images) {
      if (problem) break;
      engine::Message alone{.role = engine::Role::kUser};
      alone.images.push_back(image);
      alone.images.back().at = 0;
      const Result<std::vector<engine::Token>> tokens = engine.tokenize({.messages = {alone}});
      if (!tokens) {
        problem = tokens.error();
      } else {
        count += tokens->size();
      }
      between();
    }
  }
  if (problem) return std::unexpected(*std::move(problem));
  return count;
}

}  // namespace pensieve::worker
