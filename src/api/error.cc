#include "api/error.h"

#include <algorithm>
#include <utility>

#include "api/json.h"

namespace pensieve::api {
namespace {

ApiError error_of(unsigned status, std::string_view type, std::string message) {
  ApiError error;
  error.status = status;
  error.type = type;
  error.message = std::move(message);
  return error;
}

/// Claude Code gives up at once on more than 60 s, and 0 would be a busy loop.
unsigned usable_retry_after(unsigned seconds) {
  return std::clamp(seconds, 1U, 60U);
}

}  // namespace

ApiError invalid_request(std::string message) {
  return error_of(400, "invalid_request_error", std::move(message));
}

ApiError not_found(std::string message) {
  return error_of(404, "not_found_error", std::move(message));
}

ApiError method_not_allowed(std::string message) {
  return error_of(405, "invalid_request_error", std::move(message));
}

ApiError permission_denied(std::string message) {
  return error_of(403, "permission_error", std::move(message));
}

ApiError request_timeout(std::string message) {
  return error_of(408, "timeout_error", std::move(message));
}

ApiError request_too_large(std::string message) {
  return error_of(413, "request_too_large", std::move(message));
}

ApiError overloaded(std::string message, unsigned retry_after_seconds) {
  ApiError error = error_of(503, "overloaded_error", std::move(message));
  error.retry_after_seconds = usable_retry_after(retry_after_seconds);
  return error;
}

ApiError queue_full(std::string message, unsigned retry_after_seconds) {
  ApiError error = error_of(529, "overloaded_error", std::move(message));
  error.retry_after_seconds = usable_retry_after(retry_after_seconds);
  return error;
}

ApiError rate_limited(std::string message, std::optional<unsigned> retry_after_seconds) {
  ApiError error = error_of(429, "rate_limit_error", std::move(message));
  if (retry_after_seconds) {
    error.retry_after_seconds = usable_retry_after(*retry_after_seconds);
  } else {
    error.should_retry = false;
  }
  return error;
}

ApiError internal(std::string message) {
  return error_of(500, "api_error", std::move(message));
}

ApiError unavailable_for_good(std::string message) {
  ApiError error = error_of(503, "api_error", std::move(message));
  error.should_retry = false;
  return error;
}

std::string error_body(const ApiError& error, std::string_view request_id) {
  std::string out = R"({"type":"error","error":{"type":)";
  append_json(out, error.type);
  out += R"(,"message":)";
  append_json(out, error.message);
  if (!error.error_code.empty()) {
    out += R"(,"details":{"error_code":)";
    append_json(out, error.error_code);
    if (!error.unsupported.empty()) {
      out += R"(,"unsupported":[)";
      for (const std::string& field : error.unsupported) {
        if (&field != &error.unsupported.front()) out += ',';
        append_json(out, field);
      }
      out += ']';
    }
    out += '}';
  }
  out += R"(},"request_id":)";
  append_json(out, request_id);
  out += '}';
  return out;
}

}  // namespace pensieve::api
