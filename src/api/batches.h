// The Message Batches API: what a client sends to create one, and what it reads of it. Bytes in and
// out; which request runs when is gateway/batches.h's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/error.h"

namespace pensieve::api {

inline constexpr std::size_t kBatchRequestsMax = 10000;
/// As Anthropic's API has it: 1 to 64 of [A-Za-z0-9_-].
inline constexpr std::size_t kCustomIdBytesMax = 64;

struct BatchRequest {
  std::string custom_id;
  std::string params;  // A JSON object in compact form, on one line; not looked into yet.
};

/// Reads `{"requests":[{"custom_id":...,"params":{...}},...]}`. As at Anthropic's, `params` are
/// looked into when their turn comes: a bad request is a result, not a refusal of all.
/// Errors: 400 that names the field; custom ids that are there twice are one.
std::expected<std::vector<BatchRequest>, ApiError> parse_batch(std::string_view body);

enum class BatchResult : std::uint8_t { kSucceeded, kErrored, kCanceled, kExpired };
inline constexpr std::array kBatchResults{BatchResult::kSucceeded, BatchResult::kErrored,
                                          BatchResult::kCanceled, BatchResult::kExpired};
std::string_view name(BatchResult result);  // "succeeded", "errored", "canceled", "expired"

/// How many requests have ended how; by the order of kBatchResults.
using BatchTally = std::array<std::uint32_t, kBatchResults.size()>;

struct Batch {
  std::string id;
  std::uint32_t requests = 0;
  std::string created_at;  // RFC 3339, as are the others.
  std::string expires_at;
  std::optional<std::string> cancel_initiated_at;
  std::optional<std::string> ended_at;
  BatchTally tally{};  // Shown once it has ended; before, all requests are "processing".
  std::string results_url;
};

std::string batch_body(const Batch& batch);
std::string deleted_batch_body(std::string_view id);

// One line of the results, without its line break. `message` is a whole message as JSON.
std::string succeeded_line(std::string_view custom_id, std::string_view message);
std::string errored_line(std::string_view custom_id, const ApiError& error,
                         std::string_view request_id);
/// REQUIRES: kCanceled or kExpired.
std::string unprocessed_line(std::string_view custom_id, BatchResult result);

/// What became of the request that a line of the results is about. Empty where it is no such line.
std::optional<BatchResult> result_of_line(std::string_view line);

/// One request as a line of a file, and back. `params` empty: the line is damaged.
std::string request_line(const BatchRequest& request);
BatchRequest request_of_line(std::string_view line);

}  // namespace pensieve::api
