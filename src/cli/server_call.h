// Requests to the server whose answers are JSON, with failures that say what to do.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include <boost/json/value.hpp>

#include "cli/exit_code.h"
#include "cli/http_client.h"

namespace pensieve::cli {

struct Failure {
  ExitCode code = ExitCode::kFailure;
  std::string message;
};

/// What an HTTP error or a broken connection means for the user.
Failure failure_of(const HttpError& error);
Failure failure_of(const HttpResponse& response);

/// Sends a request and parses its 2xx answer.
std::expected<boost::json::value, Failure> call(const Endpoint& endpoint,
                                                const HttpRequest& request);

/// `text` as JSON; empty object members and wrong types are the caller's matter.
std::expected<boost::json::value, Failure> parse_json(std::string_view text);

/// The member `name` of an object; null where `value` is no object or has no such member.
const boost::json::value& member(const boost::json::value& value, std::string_view name);

/// The text of a string member, `otherwise` where it is none.
std::string text_member(const boost::json::value& value, std::string_view name,
                        std::string_view otherwise = "?");

/// The number of a whole, not negative member; empty where it is none.
std::optional<std::uint64_t> count_member(const boost::json::value& value, std::string_view name);

}  // namespace pensieve::cli
