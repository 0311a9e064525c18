// One entry of [server] keys: who may use the server, and how much of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pensieve::config {

struct ApiKey {
  std::string name;                      // Of [A-Za-z0-9_-], at most 64; for logs and messages.
  std::string secret;                    // What the client sends; no white space.
  std::uint32_t requests_max = 0;        // At once; 0: no limit.
  std::uint64_t tokens_per_day_max = 0;  // Of a day in UTC; 0: no limit.
};

/// "NAME SECRET [requests=N] [tokens_per_day=N]". Errors: kInvalidArgument, without the secret.
Result<ApiKey> parse_api_key(std::string_view text);

/// All entries. Errors: the same, and names or secrets that are there twice; the entry is named by
/// its place, counted from 1.
Result<std::vector<ApiKey>> parse_api_keys(const std::vector<std::string>& entries);

/// The key that this program's own commands send: `api_key`; where it is empty the first of
/// `entries` without limits, which alone may do all that they ask for; else the first. Empty where
/// there is none. REQUIRES: parse_api_keys() takes `entries`.
std::string key_of_commands(std::string_view api_key, const std::vector<std::string>& entries);

}  // namespace pensieve::config
