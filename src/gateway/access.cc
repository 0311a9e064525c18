#include "gateway/access.h"

#include <algorithm>
#include <cctype>
#include <cstddef>

#include <fmt/core.h>

#include "base/text.h"

namespace pensieve::gateway {
namespace {

/// "127.0.0.1" of "127.0.0.1:7777", "::1" of "[::1]:7777".
std::string_view host_name(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool equal_without_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

/// Host names have no case.
bool is_loopback_name(std::string_view name) {
  constexpr std::string_view kLocalhost = "localhost";
  const std::string_view last = name.substr(name.size() - std::min(name.size(), kLocalhost.size()));
  const bool ends_so = equal_without_case(last, kLocalhost);
  const bool is_label = name.size() <= last.size() || name[name.size() - last.size() - 1] == '.';
  return (ends_so && is_label) || name == "::1" ||
         (name.starts_with("127.") &&
          name.find_first_not_of("0123456789.") == std::string_view::npos);
}

/// The host part of "http://host:port".
std::string_view origin_host(std::string_view origin) {
  const std::size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? std::string_view() : origin.substr(scheme + 3);
}

constexpr std::string_view kSpaces = " \t";  // A header has no line breaks.

/// Takes what stands before the next `separator` off `rest`, without the spaces around it.
std::string_view take_item(std::string_view& rest, char separator) {
  const std::size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view item = trimmed(rest.substr(0, end), kSpaces);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return item;
}

/// What follows "Bearer", a word without case (RFC 9110, section 11.1).
std::string_view bearer_token(const HttpRequest& request) {
  std::string_view rest = request.header("authorization");
  return equal_without_case(take_item(rest, ' '), "Bearer") ? trimmed(rest, kSpaces)
                                                            : std::string_view();
}

const ApiKey* key_for(std::string_view shown, const AccessRules& rules) {
  const ApiKey* fitting = nullptr;
  for (const ApiKey& key : rules.keys) {
    if (equal_in_constant_time(shown, key.secret)) fitting = &key;
  }
  return fitting;
}

/// The key that fits, or nullptr. Looks at all of them, whatever the first ones say, and at both
/// headers: a client whose environment has a key of the real API beside ours sends both.
const ApiKey* fitting_key(const HttpRequest& request, const AccessRules& rules) {
  const ApiKey* const by_key = key_for(request.header("x-api-key"), rules);
  const ApiKey* const by_token = key_for(bearer_token(request), rules);
  return by_key != nullptr ? by_key : by_token;
}

/// "203.0.113.7, 127.0.0.1", as in X-Forwarded-For.
bool names_another_machine(std::string_view list) {
  while (!list.empty()) {
    const std::string_view address = take_item(list, ',');
    if (!address.empty() && !is_loopback_name(address)) return true;
  }
  return false;
}

/// The same of one `Forwarded` header (RFC 7239): `for=203.0.113.7;proto=https, for="[::1]:80"`.
/// An element that does not say for whom it is may be for anybody.
bool is_forwarded_for_another(std::string_view list) {
  while (!list.empty()) {
    std::string_view element = take_item(list, ',');
    std::string_view address;
    while (!element.empty()) {
      std::string_view node = take_item(element, ';');
      if (equal_without_case(take_item(node, '='), "for")) address = trimmed(node, kSpaces);
    }
    if (address.size() > 1 && address.starts_with('"'))
      address = address.substr(1, address.size() - 2);
    if (!is_loopback_name(host_name(address))) return true;
  }
  return false;
}

/// A proxy has named an address that is not this machine's. Each line of a header counts: some
/// proxies add a line of their own below the one that the client sent.
bool is_from_elsewhere(const HttpRequest& request) {
  return std::any_of(request.headers.begin(), request.headers.end(), [](const auto& header) {
    const auto& [name, content] = header;
    if (name == "forwarded") return is_forwarded_for_another(content);
    return (name == "x-forwarded-for" || name == "x-real-ip") && names_another_machine(content);
  });
}

api::ApiError wrong_key(const HttpRequest& request) {
  const bool shows_none = request.header("x-api-key").empty() && bearer_token(request).empty();
  api::ApiError error;
  error.status = 401;
  error.type = "authentication_error";
  error.message = shows_none ? "x-api-key header is required" : "invalid x-api-key";
  error.should_retry = false;  // Clients retry a 401 for minutes otherwise.
  return error;
}

/// What changes the server for everybody.
bool is_administration(const HttpRequest& request) {
  return request.method == "POST" && request.path.starts_with("/v1/pensieve/");
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
  const bool reads = request.method == "GET" || request.method == "HEAD";
  const bool open = request.method == "OPTIONS" || (request.path == "/health" && reads) ||
                    (request.path == "/" && request.method == "HEAD");
  if (open) return {};
  if (rules.keys.empty()) {
    if (!is_from_elsewhere(request)) return {};
    return std::unexpected(api::permission_denied(
        "this came through a proxy from another machine, so a key is needed: set [server] api_key "
        "or keys"));
  }
  const ApiKey* const key = fitting_key(request, rules);
  if (key == nullptr) return std::unexpected(wrong_key(request));
  if (is_administration(request) && key->has_limits()) {
    return std::unexpected(api::permission_denied(fmt::format(
        "the key \"{}\" has limits, so it may not administer the server; use one without",
        key->name)));
  }
  return {};
}

ApiKey key_of(const HttpRequest& request, const AccessRules& rules) {
  const ApiKey* key = fitting_key(request, rules);
  return key != nullptr ? *key : ApiKey();
}

}  // namespace pensieve::gateway
