#include "gateway/access.h"

#include <algorithm>
#include <cstddef>

#include <fmt/core.h>

namespace pensieve::gateway {
namespace {

/// "127.0.0.1" of "127.0.0.1:7777", "::1" of "[::1]:7777".
std::string_view host_name(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool is_loopback_name(std::string_view name) {
  return name == "localhost" || name == "::1" || name.ends_with(".localhost") ||
         (name.starts_with("127.") &&
          name.find_first_not_of("0123456789.") == std::string_view::npos);
}

/// The host part of "http://host:port".
std::string_view origin_host(std::string_view origin) {
  const std::size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? std::string_view() : origin.substr(scheme + 3);
}

std::string_view shown_key(const HttpRequest& request) {
  const std::string_view key = request.header("x-api-key");
  if (!key.empty()) return key;
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view authorization = request.header("authorization");
  return authorization.starts_with(kBearer) ? authorization.substr(kBearer.size())
                                            : std::string_view();
}

/// The key that fits, or nullptr. Looks at all of them, whatever the first ones say.
const ApiKey* fitting_key(const HttpRequest& request, const AccessRules& rules) {
  const std::string_view shown = shown_key(request);
  const ApiKey* fitting = nullptr;
  for (const ApiKey& key : rules.keys) {
    if (equal_in_constant_time(shown, key.secret)) fitting = &key;
  }
  return fitting;
}

/// A proxy has named an address that is not this machine's: "203.0.113.7, 127.0.0.1".
bool is_from_elsewhere(const HttpRequest& request) {
  std::string_view list = request.header("x-forwarded-for");
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view address = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    const std::size_t begin = address.find_first_not_of(" \t");
    if (begin == std::string_view::npos) continue;
    address = address.substr(begin, address.find_last_not_of(" \t") - begin + 1);
    if (!is_loopback_name(address)) return true;
  }
  return false;
}

}  // namespace

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const char other = i < b.size() ? b[i] : '\0';
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(other);
  }
  return difference == 0;
}

bool is_listed_origin(std::string_view origin, const AccessRules& rules) {
  return std::any_of(rules.allowed_origins.begin(), rules.allowed_origins.end(),
                     [&](const std::string& listed) { return listed == origin; });
}

std::expected<void, api::ApiError> check_access(const HttpRequest& request,
                                                const AccessRules& rules) {
  const std::string_view host = request.header("host");
  // HTTP/1.0 clients may send none; a browser always does.
  if (rules.loopback_only && !host.empty() && !is_loopback_name(host_name(host))) {
    return std::unexpected(api::permission_denied(
        fmt::format("Host \"{}\" is not this server; use 127.0.0.1 or localhost", host)));
  }
  const std::string_view origin = request.header("origin");
  if (!origin.empty() && origin_host(origin) != host && !is_listed_origin(origin, rules)) {
    return std::unexpected(api::permission_denied(fmt::format(
        "web pages of {} may not use this server; list it in allowed_origins", origin)));
  }
  const bool open = request.method == "OPTIONS" ||
                    (request.path == "/health" && request.method == "GET") ||
                    (request.path == "/" && request.method == "HEAD");
  if (open) return {};
  if (rules.keys.empty()) {
    if (!is_from_elsewhere(request)) return {};
    return std::unexpected(api::permission_denied(
        "this came through a proxy from another machine, so a key is needed: set [server] api_key "
        "or keys"));
  }
  if (fitting_key(request, rules) != nullptr) return {};
  api::ApiError error;
  error.status = 401;
  error.type = "authentication_error";
  error.message = "invalid x-api-key";
  error.should_retry = false;  // Clients retry a 401 for minutes otherwise.
  return std::unexpected(error);
}

ApiKey key_of(const HttpRequest& request, const AccessRules& rules) {
  const ApiKey* key = fitting_key(request, rules);
  return key != nullptr ? *key : ApiKey();
}

}  // namespace pensieve::gateway
