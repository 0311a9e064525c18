#include "api/error.h"

#include <gtest/gtest.h>

namespace pensieve::api {
namespace {

void expect_error(const ApiError& error, unsigned status, std::string_view type) {
  EXPECT_EQ(error.status, status);
  EXPECT_EQ(error.type, type);
  EXPECT_EQ(error.message, "why");
}

TEST(ApiErrorTest, HasTheStatusAndTypeThatTheSdksMapToTheirExceptions) {
  expect_error(invalid_request("why"), 400, "invalid_request_error");
  expect_error(not_found("why"), 404, "not_found_error");
  expect_error(method_not_allowed("why"), 405, "invalid_request_error");
  expect_error(permission_denied("why"), 403, "permission_error");
  expect_error(request_timeout("why"), 408, "timeout_error");
  expect_error(request_too_large("why"), 413, "request_too_large");
  expect_error(overloaded("why", 1), 503, "overloaded_error");
  expect_error(queue_full("why", 1), 529, "overloaded_error");
  expect_error(internal("why"), 500, "api_error");
  expect_error(unavailable_for_good("why"), 503, "api_error");
}

TEST(ApiErrorTest, OnlyWhatWillNotPassForbidsARetry) {
  EXPECT_EQ(unavailable_for_good("why").should_retry, false);
  EXPECT_EQ(overloaded("why", 5).should_retry, std::nullopt);
  EXPECT_EQ(invalid_request("why").should_retry, std::nullopt);
}

TEST(ApiErrorTest, RetryAfterStaysBetweenOneAndSixtySeconds) {
  EXPECT_EQ(overloaded("why", 0).retry_after_seconds, 1U);
  EXPECT_EQ(overloaded("why", 1).retry_after_seconds, 1U);
  EXPECT_EQ(queue_full("why", 60).retry_after_seconds, 60U);
  EXPECT_EQ(queue_full("why", 61).retry_after_seconds, 60U);
  EXPECT_EQ(internal("why").retry_after_seconds, std::nullopt);
}

TEST(ErrorBodyTest, IsTheApisErrorObject) {
  EXPECT_EQ(error_body(overloaded("Server is under critical memory pressure: 0.75GB available", 5),
                       "req_1"),
            R"({"type":"error","error":{"type":"overloaded_error",)"
            R"("message":"Server is under critical memory pressure: 0.75GB available"},)"
            R"("request_id":"req_1"})");
}

TEST(ErrorBodyTest, ShowsTheErrorCodeAndTheUnsupportedFields) {
  ApiError error = invalid_request("no");
  error.error_code = "some_code";
  EXPECT_EQ(error_body(error, "req_1"),
            R"({"type":"error","error":{"type":"invalid_request_error","message":"no",)"
            R"("details":{"error_code":"some_code"}},"request_id":"req_1"})");
  error.unsupported = {"thread", "other"};
  EXPECT_EQ(error_body(error, "req_1"),
            R"({"type":"error","error":{"type":"invalid_request_error","message":"no",)"
            R"("details":{"error_code":"some_code","unsupported":["thread","other"]}},)"
            R"("request_id":"req_1"})");
}

TEST(ErrorBodyTest, EscapesTheMessage) {
  EXPECT_EQ(error_body(internal("a \"b\"\n\\"), "req_\""),
            R"({"type":"error","error":{"type":"api_error","message":"a \"b\"\n\\"},)"
            R"("request_id":"req_\""})");
}

}  // namespace
}  // namespace pensieve::api
