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

std::string_view key_of(const HttpRequest& request) {
  const std::string_view key = request.header("x-api-key");
  if (!key.empty()) return key;
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view authorization = request.header("authorization");
  return authorization.starts_with(kBearer) ? authorization.substr(kBearer.size())
                                            : std::string_view();
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
  if (rules.api_key.empty() || request.method == "OPTIONS") return {};
  const bool open = (request.path == "/health" && request.method == "GET") ||
                    (request.path == "/" && request.method == "HEAD");
  if (open || equal_in_constant_time(key_of(request), rules.api_key)) return {};
  api::ApiError error;
  error.status = 401;
  error.type = "authentication_error";
  error.message = "invalid x-api-key";
  error.should_retry = false;  // Clients retry a 401 for minutes otherwise.
  return std::unexpected(error);
}

}  // namespace pensieve::gateway
