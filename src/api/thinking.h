// The `thinking` and `output_config.effort` of a request, and thoughts that go out unseen.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "api/json.h"
#include "engine/engine.h"

namespace pensieve::api {

/// What becomes of the thoughts of an answer.
enum class ThinkingDisplay : std::uint8_t {
  kNone,     // None were asked for; those of a model that thinks anyway are dropped.
  kShown,    // As text. "summarized" and "updates" as well: there is nobody to sum them up.
  kOmitted,  // Only in the block's signature, which comes back with the next turn.
};

/// Reads `thinking` and `output_config.effort` into the rules of an answer of at most
/// `output_tokens_max` tokens, and says what becomes of the thoughts.
///
///   disabled, between_tools, or nothing   no thoughts
///   enabled                at most `budget_tokens`, which is at least 1024
///   adaptive               as many as the model likes; 2,048 with effort low, 8,192 with medium
///
/// A quarter of `output_tokens_max` is kept for the answer in any case. Efforts that we do not know
/// count as high. Models that do not think ignore all of it.
/// Errors: another `type`, a budget that is missing or too small, an effort that is no string.
std::expected<ThinkingDisplay, Refusal> parse_thinking(const boost::json::object& body,
                                                       std::uint32_t output_tokens_max,
                                                       engine::AnswerRules& rules);

/// The signature of a block whose thoughts are shown: clients want one, and nobody looks at it.
inline constexpr std::string_view kShownSignature = "cGVuc2lldmU=";

/// The signature of a block whose thoughts are not shown: they are in it, so that the next turn has
/// the same prompt. Anthropic's clients send it back as it is and do not look inside.
std::string thinking_signature(std::string_view thinking);
/// Empty where `signature` is none of ours, or holds no valid UTF-8.
std::optional<std::string> thinking_in(std::string_view signature);

}  // namespace pensieve::api
