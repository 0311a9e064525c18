#include "gateway/key_limits.h"

#include <exception>
#include <stdexcept>

#include <fmt/core.h>
#include <boost/json.hpp>

namespace pensieve::gateway {
namespace {

namespace json = boost::json;

constexpr int kVersion = 1;  // Of text().

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
  ++spendings_;
}

std::string KeyLimits::text() const {
  const auto today = std::chrono::floor<std::chrono::days>(wall_());
  json::object tokens;
  for (const auto& [name, use] : uses_) {
    if (use.day == today && use.tokens > 0) tokens[name] = use.tokens;
  }
  return json::serialize(json::object{{"version", kVersion},
                                      {"day", today.time_since_epoch().count()},
                                      {"tokens", std::move(tokens)}});
}

Result<void> KeyLimits::restore(std::string_view text) {
  std::map<std::string, std::uint64_t, std::less<>> counts;
  try {
    const json::value value = json::parse(text);
    if (value.at("version").to_number<int>() != kVersion) throw std::range_error("its version");
    const auto day = value.at("day").to_number<std::int64_t>();
    const json::object& tokens = value.at("tokens").as_object();
    if (tokens.size() > kNamesMax) throw std::length_error("it has too many names");
    for (const auto& [name, count] : tokens) {
      counts[std::string(name)] = count.to_number<std::uint64_t>();
    }
    const auto today = std::chrono::floor<std::chrono::days>(wall_());
    if (day != today.time_since_epoch().count()) return {};
  } catch (const std::exception& what) {
    return fail(Code::kInvalidArgument, what.what());
  }
  for (const auto& [name, count] : counts) {
    std::uint64_t& tokens = use_of(name).tokens;
    tokens = count > ~std::uint64_t{0} - tokens ? ~std::uint64_t{0} : tokens + count;
  }
  return {};
}

}  // namespace pensieve::gateway
