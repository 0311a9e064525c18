// What creates a batch, and the lines that requests and results become.
#include "api/batches.h"

#include <string>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <boost/json.hpp>

namespace pensieve::api {
namespace {

std::string refusal(std::string_view body) {
  const auto parsed = parse_batch(body);
  if (parsed) return "accepted";
  EXPECT_EQ(parsed.error().status, 400U);
  EXPECT_EQ(parsed.error().type, "invalid_request_error");
  return parsed.error().message;
}

std::string with_id(std::string_view custom_id) {
  return fmt::format(R"({{"requests":[{{"custom_id":"{}","params":{{}}}}]}})", custom_id);
}

Batch batch() {
  return {.id = "msgbatch_1",
          .requests = 3,
          .created_at = "2026-01-01T00:00:00Z",
          .expires_at = "2026-01-02T00:00:00Z",
          .cancel_initiated_at = {},
          .ended_at = {},
          .tally = {1, 2, 0, 0},
          .results_url = "http://h/v1/messages/batches/msgbatch_1/results"};
}

std::string status_of(const Batch& batch) {
  return boost::json::parse(batch_body(batch)).at("processing_status").as_string().c_str();
}

TEST(BatchTest, ParamsAreKeptAsTheyAreOnOneLine) {
  const auto requests = parse_batch(R"({"requests":[
    {"custom_id":"a-1_B","params":{"model": "m",
      "temperature": 1.0, "x": "two\nlines"}},
    {"params":{"bad":true},"custom_id":"b","more":1}],"unknown":2})");
  ASSERT_TRUE(requests) << requests.error().message;
  ASSERT_EQ(requests->size(), 2U);
  EXPECT_EQ((*requests)[0].custom_id, "a-1_B");
  EXPECT_EQ((*requests)[0].params, R"({"model":"m","temperature":1.0,"x":"two\nlines"})");
  EXPECT_EQ((*requests)[1].params, R"({"bad":true})");
}

TEST(BatchTest, ABadListIsRefusedAsAWholeAndTheFieldNamed) {
  EXPECT_EQ(refusal("[]"), "The request body should be a JSON object");
  EXPECT_EQ(refusal("{}"), "requests: Field required");
  EXPECT_EQ(refusal(R"({"requests":{}})"), "requests: Input should be a valid list");
  EXPECT_EQ(refusal(R"({"requests":[]})"), "requests: List should have at least 1 item");
  EXPECT_EQ(refusal(R"({"requests":[1]})"), "requests.0: Input should be an object");
  EXPECT_EQ(refusal(R"({"requests":[{"params":{}}]})"), "requests.0.custom_id: Field required");
  EXPECT_EQ(refusal(R"({"requests":[{"custom_id":"a"}]})"), "requests.0.params: Field required");
  EXPECT_EQ(refusal(R"({"requests":[{"custom_id":"a","params":[]}]})"),
            "requests.0.params: Input should be an object");
  EXPECT_EQ(
      refusal(R"({"requests":[{"custom_id":"a","params":{}},{"custom_id":"a","params":{}}]})"),
      "requests.1.custom_id: \"a\" is there twice; each request needs one of its own");
}

TEST(BatchTest, ACustomIdHasABound) {
  EXPECT_EQ(refusal(with_id(std::string(64, 'x'))), "accepted");
  for (const std::string& bad : {std::string(65, 'x'), std::string(), std::string("a b"),
                                 std::string("ä"), std::string("a/b")}) {
    EXPECT_EQ(refusal(with_id(bad)),
              "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'");
  }
}

TEST(BatchTest, ThereAreAtMostTenThousandRequests) {
  const auto body = [](std::size_t count) {
    std::string text = R"({"requests":[)";
    for (std::size_t i = 0; i < count; ++i) {
      text += fmt::format(R"({}{{"custom_id":"{}","params":{{}}}})", i > 0 ? "," : "", i);
    }
    return text + "]}";
  };
  EXPECT_EQ(refusal(body(kBatchRequestsMax)), "accepted");
  EXPECT_EQ(refusal(body(kBatchRequestsMax + 1)), "requests: List should have at most 10000 items");
}

TEST(BatchTest, ABodyHasTheExactShape) {
  Batch ended = batch();
  ended.ended_at = "2026-01-01T01:00:00Z";
  EXPECT_EQ(batch_body(ended),
            R"({"id":"msgbatch_1","type":"message_batch","processing_status":"ended",)"
            R"("request_counts":{"processing":0,"succeeded":1,"errored":2,"canceled":0,)"
            R"("expired":0},"created_at":"2026-01-01T00:00:00Z",)"
            R"("expires_at":"2026-01-02T00:00:00Z","ended_at":"2026-01-01T01:00:00Z",)"
            R"("cancel_initiated_at":null,"archived_at":null,)"
            R"("results_url":"http://h/v1/messages/batches/msgbatch_1/results"})");
  EXPECT_EQ(deleted_batch_body("msgbatch_1"),
            R"({"id":"msgbatch_1","type":"message_batch_deleted"})");
}

TEST(BatchTest, AllRequestsAreProcessingUntilTheBatchHasEnded) {
  const std::string running = batch_body(batch());
  EXPECT_NE(running.find(R"({"processing":3,"succeeded":0,"errored":0,"canceled":0,"expired":0})"),
            std::string::npos)
      << running;
  EXPECT_NE(running.find(R"("ended_at":null)"), std::string::npos);
  EXPECT_NE(running.find(R"("results_url":null)"), std::string::npos);
}

TEST(BatchTest, TheStatusFollowsCancelAndEnd) {
  Batch one = batch();
  EXPECT_EQ(status_of(one), "in_progress");
  one.cancel_initiated_at = "2026-01-01T00:30:00Z";
  EXPECT_EQ(status_of(one), "canceling");
  one.ended_at = "2026-01-01T01:00:00Z";
  EXPECT_EQ(status_of(one), "ended");
}

TEST(BatchTest, LinesOfResultsHaveTheExactShape) {
  EXPECT_EQ(succeeded_line("a", R"({"id":"msg_1"})"),
            R"({"custom_id":"a","result":{"type":"succeeded","message":{"id":"msg_1"}}})");
  EXPECT_EQ(errored_line("a", invalid_request("no"), "req_1"),
            R"({"custom_id":"a","result":{"type":"errored","error":{"type":"error","error":)"
            R"({"type":"invalid_request_error","message":"no"},"request_id":"req_1"}}})");
  EXPECT_EQ(unprocessed_line("a", BatchResult::kCanceled),
            R"({"custom_id":"a","result":{"type":"canceled"}})");
  EXPECT_EQ(unprocessed_line("a", BatchResult::kExpired),
            R"({"custom_id":"a","result":{"type":"expired"}})");
}

TEST(BatchTest, ALineSaysHowItsRequestEnded) {
  EXPECT_EQ(result_of_line(succeeded_line("a", "{}")), BatchResult::kSucceeded);
  EXPECT_EQ(result_of_line(errored_line("a", internal("x"), "r")), BatchResult::kErrored);
  EXPECT_EQ(result_of_line(unprocessed_line("a", BatchResult::kCanceled)), BatchResult::kCanceled);
  const std::string whole = succeeded_line("a", R"({"text":"x"})");
  for (std::size_t length = 0; length + 1 < whole.size(); ++length) {
    EXPECT_FALSE(result_of_line(whole.substr(0, length))) << "torn after " << length << " bytes";
  }
  EXPECT_FALSE(result_of_line(R"({"custom_id":"a","result":{"type":"other"}})"));
}

TEST(BatchTest, ARequestBecomesALineAndComesBack) {
  const std::string line = request_line({"a", R"({"model":"m","params":"x"})"});
  EXPECT_EQ(line, R"({"custom_id":"a","params":{"model":"m","params":"x"}})");
  const BatchRequest back = request_of_line(line);
  EXPECT_EQ(back.custom_id, "a");
  EXPECT_EQ(back.params, R"({"model":"m","params":"x"})");
  EXPECT_EQ(request_of_line("nonsense").params, "");
  EXPECT_EQ(request_of_line(R"({"custom_id":"a","other":{}})").params, "");
}

}  // namespace
}  // namespace pensieve::api
