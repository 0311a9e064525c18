// Who may talk to the server: API keys, and what keeps web pages of other sites out.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "api/error.h"
#include "gateway/exchange.h"

namespace pensieve::gateway {

struct ApiKey {
  std::string name;                      // Empty for the one of a server with a single key.
  std::string secret;                    // What the client sends.
  std::uint32_t requests_max = 0;        // At once; 0: no limit.
  std::uint64_t tokens_per_day_max = 0;  // 0: no limit.

  bool has_limits() const { return requests_max > 0 || tokens_per_day_max > 0; }
};

struct AccessRules {
  std::vector<ApiKey> keys;  // Empty: none is asked for.
  std::vector<std::string> allowed_origins;
  /// Bound to a loopback address: only loopback names may stand in `Host`, so that a web page
  /// cannot reach the server under a name of its own (DNS rebinding).
  bool loopback_only = true;
};

/// Errors: 401 for a missing or wrong key (x-api-key and Authorization: Bearer are the same, and
/// one that fits is enough), 403 for a `Host` or `Origin` that is not ours, for what came through a
/// proxy from another machine where there are no keys, and for a key with limits that would stop
/// the server or clear its cache. `/health` and `HEAD /` need no key.
std::expected<void, api::ApiError> check_access(const HttpRequest& request,
                                                const AccessRules& rules);

/// The key that a request has shown; one without name and limits where it shows none of ours. The
/// time that it takes does not tell which key fits, nor how much of it.
ApiKey key_of(const HttpRequest& request, const AccessRules& rules);

/// True where the browser may read the answer: `origin` is listed.
bool is_listed_origin(std::string_view origin, const AccessRules& rules);

/// Compares all of both texts whatever they hold; the time tells only their lengths.
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace pensieve::gateway
