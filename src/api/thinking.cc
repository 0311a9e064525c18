#include "api/thinking.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;

constexpr std::uint32_t kNoLimit = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint32_t kBudgetTokensMin = 1024;  // Anthropic's.
// Choices: low is enough to plan one step, medium for a short proof.
constexpr std::uint32_t kLowEffortTokens = 2048;
constexpr std::uint32_t kMediumEffortTokens = 8192;

constexpr std::string_view kSignatureMark = "cGVuc2lldmU.";
constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::expected<std::uint32_t, Refusal> read_budget(const object& thinking) {
  const auto field = require(thinking, "budget_tokens");
  if (!field) return std::unexpected(field.error());
  const std::optional<double> tokens = whole_number_from(**field);
  if (!tokens) return refuse("budget_tokens", "Input should be a valid integer");
  if (*tokens < kBudgetTokensMin) {
    return refuse("budget_tokens", "Input should be greater than or equal to 1024");
  }
  return *tokens >= kNoLimit ? kNoLimit : static_cast<std::uint32_t>(*tokens);
}

std::expected<std::string, Refusal> read_effort(const object& body) {
  const value* config = find(body, "output_config");
  const object* members = config == nullptr ? nullptr : config->if_object();
  const value* effort = members == nullptr ? nullptr : find(*members, "effort");
  if (effort == nullptr) return std::string();
  const boost::json::string* name = effort->if_string();
  if (name == nullptr) return refuse("output_config.effort", "Input should be a valid string");
  if (*name == "low" || *name == "medium") return std::string(*name);
  return "high";
}

std::uint32_t adaptive_budget(std::string_view effort) {
  if (effort == "low") return kLowEffortTokens;
  return effort == "medium" ? kMediumEffortTokens : kNoLimit;
}

std::expected<std::uint32_t, Refusal> thinking_budget(const object& thinking,
                                                      std::string_view effort) {
  const auto type = require_string(thinking, "type");
  if (!type) return std::unexpected(type.error());
  // Between tools: no thinking, and notes between calls in blocks of their own, which ours has not.
  if (*type == "disabled" || *type == "between_tools") return 0;
  if (*type == "adaptive") return adaptive_budget(effort);
  if (*type == "enabled") return read_budget(thinking);
  return refuse("type", "Input should be 'adaptive', 'enabled', 'between_tools' or 'disabled'");
}

bool is_omitted(const object& thinking) {
  const value* display = find(thinking, "display");
  return display != nullptr && *display == "omitted";
}

}  // namespace

std::expected<ThinkingDisplay, Refusal> parse_thinking(const object& body,
                                                       std::uint32_t output_tokens_max,
                                                       engine::AnswerRules& rules) {
  auto effort = read_effort(body);
  if (!effort) return std::unexpected(effort.error());
  rules.effort = *std::move(effort);
  const value* field = find(body, "thinking");
  if (field == nullptr) return ThinkingDisplay::kNone;
  const object* thinking = field->if_object();
  if (thinking == nullptr) return refuse("thinking", "Input should be an object");
  const auto budget = thinking_budget(*thinking, rules.effort);
  if (!budget) return std::unexpected(within("thinking", budget.error()));
  rules.thinking_tokens_max = std::min(*budget, output_tokens_max - output_tokens_max / 4);
  if (rules.thinking_tokens_max == 0) return ThinkingDisplay::kNone;
  return is_omitted(*thinking) ? ThinkingDisplay::kOmitted : ThinkingDisplay::kShown;
}

// The mark and base64 of the text, without padding.

std::string thinking_signature(std::string_view thinking) {
  std::string out(kSignatureMark);
  out.reserve(out.size() + thinking.size() / 3 * 4 + 4);
  for (std::size_t i = 0; i < thinking.size(); i += 3) {
    const std::size_t bytes = std::min<std::size_t>(3, thinking.size() - i);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = bits << 8U | (k < bytes ? static_cast<unsigned char>(thinking[i + k]) : 0U);
    }
    for (std::size_t k = 0; k <= bytes; ++k) out += kDigits[bits >> (18 - 6 * k) & 63U];
  }
  return out;
}

std::optional<std::string> thinking_in(std::string_view signature) {
  if (!signature.starts_with(kSignatureMark)) return std::nullopt;
  signature.remove_prefix(kSignatureMark.size());
  std::string out;
  out.reserve(signature.size() / 4 * 3 + 3);
  std::uint32_t bits = 0;
  unsigned held = 0;
  for (const char c : signature) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6U | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>(bits >> held & 0xFFU);
  }
  if (!is_utf8(out)) return std::nullopt;
  return out;
}

}  // namespace pensieve::api
