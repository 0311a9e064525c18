// How long a prompt may be before it is tokenised: tokenising takes many times its size.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::worker {

/// Prompts that are only counted may be so many times longer: they are taken in pieces.
inline constexpr std::uint64_t kCountedPromptsMax = 8;

/// Of everything that a template may show: what was said, thought and called, and the shown tools.
std::uint64_t text_bytes(const engine::Prompt& prompt);

/// Why a prompt of so many bytes is not even tokenised; empty where it may be. Worded as clients
/// know it ("prompt is too long: N tokens > M maximum"), N by the usual four bytes a token.
std::optional<std::string> too_long(std::uint64_t prompt_bytes, std::uint32_t context_tokens,
                                    std::uint64_t times = 1);

/// What a payload of kEmbed wants to be embedded, in tokens. Errors: kInvalidArgument where it is
/// no such payload, or longer than the window; the engine's otherwise.
Result<std::vector<engine::Token>> tokens_to_embed(const engine::Engine& engine,
                                                   std::string_view payload,
                                                   std::uint32_t context_tokens);

/// Why an input is too long to be embedded; names the limit.
std::string too_long_to_embed(std::uint64_t tokens, std::uint32_t context_tokens);

/// The tokens of a prompt. One that is too long to be tokenised in one go is cut at white space,
/// and each piece adds the tokens of a turn of its own: the figure is a little too large then.
/// `between` is called after each piece.
/// Errors: as Engine::tokenize(); kInvalidArgument beyond kCountedPromptsMax.
Result<std::uint64_t> count_tokens(const engine::Engine& engine, const engine::Prompt& prompt,
                                   std::uint32_t context_tokens,
                                   const std::function<void()>& between);

}  // namespace pensieve::worker
