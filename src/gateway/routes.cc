#include "gateway/routes.h"

#include <algorithm>

namespace pensieve::gateway {
namespace {

constexpr std::string_view kId = "{id}";

bool matches(std::string_view pattern, std::string_view path) {
  const std::size_t at = pattern.find(kId);
  if (at == std::string_view::npos) return pattern == path;
  const std::string_view before = pattern.substr(0, at);
  const std::string_view after = pattern.substr(at + kId.size());
  if (path.size() <= before.size() + after.size()) return false;
  if (!path.starts_with(before) || !path.ends_with(after)) return false;
  const std::string_view id =
      path.substr(before.size(), path.size() - before.size() - after.size());
  return before == "/v1/models/" || !id.contains('/');
}

}  // namespace

const Route* find_route(std::string_view path) {
  const auto* const found = std::ranges::find_if(
      kRoutes, [path](const Route& route) { return matches(route.path, path); });
  return found == kRoutes.end() ? nullptr : found;
}

bool allows(const Route& route, std::string_view method) {
  std::string_view left = route.methods;
  while (!left.empty()) {
    const std::size_t end = std::min(left.find(','), left.size());
    if (left.substr(0, end) == method) return true;
    left.remove_prefix(std::min(end + 2, left.size()));
  }
  return false;
}

}  // namespace pensieve::gateway
