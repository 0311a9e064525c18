// An error as the Messages API shows it: HTTP status, type, message, and whether to try again.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pensieve::api {

struct ApiError {
  unsigned status = 500;
  std::string type = "api_error";
  std::string message;
  std::string error_code;  // `error.details.error_code`; none where empty.
  /// `x-should-retry`; unset leaves it to the client's own rules for the status.
  std::optional<bool> should_retry;
  /// `retry-after` in seconds, 1 to 60 (clients ignore more); no header where unset.
  std::optional<unsigned> retry_after_seconds;
  /// `error.details.unsupported`: request fields to leave out next time; shown with error_code.
  std::vector<std::string> unsupported;
};

ApiError invalid_request(std::string message);     // 400
ApiError not_found(std::string message);           // 404
ApiError method_not_allowed(std::string message);  // 405, invalid_request_error
ApiError permission_denied(std::string message);   // 403
ApiError request_timeout(std::string message);     // 408, timeout_error
ApiError request_too_large(std::string message);   // 413
// A retry_after_seconds outside 1 to 60 becomes the nearer of the two.
ApiError overloaded(std::string message, unsigned retry_after_seconds);  // 503, overloaded_error
ApiError queue_full(std::string message, unsigned retry_after_seconds);  // 529, overloaded_error
/// 429, rate_limit_error. Without a time to wait it will not pass soon: x-should-retry: false.
ApiError rate_limited(std::string message, std::optional<unsigned> retry_after_seconds);
ApiError internal(std::string message);  // 500, api_error
/// 503 that will not pass by itself: api_error and x-should-retry: false, because clients retry
/// an overloaded_error whatever the header says.
ApiError unavailable_for_good(std::string message);

/// `{"type":"error","error":{...},"request_id":...}`
std::string error_body(const ApiError& error, std::string_view request_id);

}  // namespace pensieve::api
