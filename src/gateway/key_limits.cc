#include "gateway/key_limits.h"

#include <fmt/core.h>

namespace pensieve::gateway {
namespace {

/// Requests of agents take seconds to minutes. Choice; anthropic-wire.md asks for at most 30.
constexpr unsigned kRetryAfterSeconds = 5;

}  // namespace

KeyLimits::Use& KeyLimits::use_of(std::string_view name) {
  auto found = uses_.find(name);
  if (found == uses_.end()) found = uses_.emplace(std::string(name), Use()).first;
  const auto today = std::chrono::floor<std::chrono::days>(wall_());
  if (found->second.day != today) {
    found->second.day = today;
    found->second.tokens = 0;
  }
  return found->second;
}

std::expected<KeyLimits::Running, api::ApiError> KeyLimits::try_run(const ApiKey& key) {
  Use& use = use_of(key.name);
  if (key.tokens_per_day_max > 0 && use.tokens >= key.tokens_per_day_max) {
    return std::unexpected(api::rate_limited(
        fmt::format("key {} has used {} of its {} tokens of this day; the next begins at 00:00 UTC",
                    key.name, use.tokens, key.tokens_per_day_max),
        std::nullopt));
  }
  if (key.requests_max > 0 && use.running >= key.requests_max) {
    return std::unexpected(
        api::rate_limited(fmt::format("key {} has {} requests running, and may have {} at once",
                                      key.name, use.running, key.requests_max),
                          kRetryAfterSeconds));
  }
  return Running(use.running);
}

bool KeyLimits::has_tokens(const ApiKey& key) {
  return key.tokens_per_day_max == 0 || use_of(key.name).tokens < key.tokens_per_day_max;
}

void KeyLimits::spend(std::string_view name, std::uint64_t tokens) {
  use_of(name).tokens += tokens;
}

}  // namespace pensieve::gateway
