#include "sandbox/model_files.h"

#include <charconv>
#include <optional>
#include <string_view>

#include <fmt/core.h>

namespace pensieve::sandbox {
namespace {

constexpr std::string_view kEnding = ".gguf";
constexpr std::string_view kBetween = "-of-";
constexpr std::size_t kDigits = 5;

std::optional<unsigned> five_digits(std::string_view text) {
  unsigned number = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, number);
  if (text.size() != kDigits || error != std::errc() || stopped_at != end) return std::nullopt;
  return number;
}

}  // namespace

std::vector<std::string> model_files(const std::string& path) {
  std::vector<std::string> files{path};
  constexpr std::size_t kTail = 1 + kDigits + kBetween.size() + kDigits + kEnding.size();
  if (path.size() <= kTail || !path.ends_with(kEnding)) return files;
  const std::string_view tail = std::string_view(path).substr(path.size() - kTail);
  const auto part = five_digits(tail.substr(1, kDigits));
  const auto parts = five_digits(tail.substr(1 + kDigits + kBetween.size(), kDigits));
  if (tail.front() != '-' || tail.substr(1 + kDigits, kBetween.size()) != kBetween || !part ||
      !parts || *parts > kPartsMax) {
    return files;
  }
  const std::string_view name = std::string_view(path).substr(0, path.size() - kTail);
  for (unsigned number = 1; number <= *parts; ++number) {
    if (number == *part) continue;
    files.push_back(fmt::format("{}-{:05}-of-{:05}{}", name, number, *parts, kEnding));
  }
  return files;
}

}  // namespace pensieve::sandbox
