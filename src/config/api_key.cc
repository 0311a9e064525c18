#include "config/api_key.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/core.h>

namespace pensieve::config {
namespace {

constexpr std::size_t kNameBytesMax = 64;
constexpr std::string_view kNameAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
constexpr std::string_view kForm = "NAME SECRET [requests=N] [tokens_per_day=N]";

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return words;
    const std::size_t end = std::min(text.find_first_of(" \t", begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    text.remove_prefix(end);
  }
}

/// "requests=4" into `out`; false where it is another word or no number from 1 on.
template <class Number>
bool read_limit(std::string_view word, std::string_view name, Number& out) {
  if (!word.starts_with(name)) return false;
  word.remove_prefix(name.size());
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
  return error == std::errc() && end == word.data() + word.size() && out > 0;
}

}  // namespace

Result<ApiKey> parse_api_key(std::string_view text) {
  const std::vector<std::string_view> words = words_of(text);
  if (words.size() < 2) return fail(Code::kInvalidArgument, fmt::format("expected {}", kForm));
  ApiKey key;
  key.name = std::string(words[0]);
  key.secret = std::string(words[1]);
  if (key.name.size() > kNameBytesMax ||
      key.name.find_first_not_of(kNameAlphabet) != std::string::npos) {
    return fail(Code::kInvalidArgument,
                fmt::format("a name is at most {} of A-Z, a-z, 0-9, _ and -", kNameBytesMax));
  }
  for (std::size_t i = 2; i < words.size(); ++i) {
    if (read_limit(words[i], "requests=", key.requests_max)) continue;
    if (read_limit(words[i], "tokens_per_day=", key.tokens_per_day_max)) continue;
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected requests=N or tokens_per_day=N from 1 on, found \"{}\"",
                            key.name, words[i]));
  }
  return key;
}

Result<std::vector<ApiKey>> parse_api_keys(const std::vector<std::string>& entries) {
  std::vector<ApiKey> keys;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    auto key = parse_api_key(entries[i]);
    if (!key) {
      return fail(Code::kInvalidArgument, fmt::format("entry {}: {}", i + 1, key.error().message));
    }
    for (const ApiKey& other : keys) {
      const bool same_name = other.name == key->name;
      if (!same_name && other.secret != key->secret) continue;
      return fail(Code::kInvalidArgument,
                  fmt::format("entry {}: {} has the same {} as an entry before it", i + 1,
                              key->name, same_name ? "name" : "secret"));
    }
    keys.push_back(*std::move(key));
  }
  return keys;
}

std::string key_of_commands(std::string_view api_key, const std::vector<std::string>& entries) {
  if (!api_key.empty()) return std::string(api_key);
  const auto keys = parse_api_keys(entries);
  PENSIEVE_CHECK(keys.has_value());
  const auto unlimited = std::ranges::find_if(*keys, [](const ApiKey& key) {
    return key.requests_max == 0 && key.tokens_per_day_max == 0;
  });
  if (unlimited != keys->end()) return unlimited->secret;
  return keys->empty() ? std::string() : keys->front().secret;
}

}  // namespace pensieve::config
