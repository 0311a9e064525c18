#include "api/batches.h"

#include <set>
#include <utility>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "api/json.h"
#include "api/raw_json.h"
#include "base/error.h"

namespace pensieve::api {
namespace {

constexpr std::string_view kIdAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// A line begins with its custom id, which holds nothing that JSON would escape, so that what
/// follows can be found without parsing megabytes.
constexpr std::string_view kCustomId = R"({"custom_id":")";
constexpr std::string_view kParams = R"(","params":)";
constexpr std::string_view kResult = R"(","result":{"type":")";

std::expected<std::string, Refusal> parse_custom_id(const boost::json::object& request) {
  const auto id = require_string(request, "custom_id");
  if (!id) return std::unexpected(id.error());
  if (id->empty() || id->size() > kCustomIdBytesMax ||
      id->find_first_not_of(kIdAlphabet) != std::string_view::npos) {
    return std::unexpected(Refusal{
        "custom_id",
        fmt::format("String should match pattern '^[a-zA-Z0-9_-]{{1,{}}}$'", kCustomIdBytesMax)});
  }
  return std::string(*id);
}

std::expected<BatchRequest, Refusal> parse_request(const boost::json::value& item,
                                                   std::string_view raw) {
  const boost::json::object* request = item.if_object();
  if (request == nullptr) return std::unexpected(Refusal{"", "Input should be an object"});
  auto custom_id = parse_custom_id(*request);
  if (!custom_id) return std::unexpected(custom_id.error());
  const auto params = require(*request, "params");
  if (!params) return std::unexpected(params.error());
  if (!(*params)->is_object()) {
    return std::unexpected(Refusal{"params", "Input should be an object"});
  }
  return BatchRequest{*std::move(custom_id), compact_json(raw_member(raw, "params"))};
}

std::expected<std::vector<BatchRequest>, Refusal> parse_requests(const boost::json::object& body,
                                                                 std::string_view raw) {
  const auto field = require(body, "requests");
  if (!field) return std::unexpected(field.error());
  const boost::json::array* list = (*field)->if_array();
  if (list == nullptr) return std::unexpected(Refusal{"requests", "Input should be a valid list"});
  if (list->empty()) {
    return std::unexpected(Refusal{"requests", "List should have at least 1 item"});
  }
  if (list->size() > kBatchRequestsMax) {
    return std::unexpected(
        Refusal{"requests", fmt::format("List should have at most {} items", kBatchRequestsMax)});
  }
  const std::vector<std::string_view> raws = raw_elements(raw_member(raw, "requests"));
  PENSIEVE_CHECK(raws.size() == list->size());
  std::vector<BatchRequest> requests;
  requests.reserve(list->size());
  std::set<std::string> ids;
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto request = parse_request((*list)[i], raws[i]);
    if (!request) return std::unexpected(within("requests", within(i, request.error())));
    if (!ids.insert(request->custom_id).second) {
      return std::unexpected(within(
          "requests",
          within(i, Refusal{"custom_id", fmt::format("\"{}\" is there twice; each request needs "
                                                     "one of its own",
                                                     request->custom_id)})));
    }
    requests.push_back(*std::move(request));
  }
  return requests;
}

void append_optional(std::string& out, const std::optional<std::string>& text) {
  if (text) {
    append_json(out, *text);
  } else {
    out += "null";
  }
}

std::string line_of(std::string_view custom_id, BatchResult result) {
  std::string line(kCustomId);
  line += custom_id;
  line += kResult;
  line += name(result);
  line += '"';
  return line;
}

}  // namespace

std::string_view name(BatchResult result) {
  switch (result) {
    case BatchResult::kSucceeded:
      return "succeeded";
    case BatchResult::kErrored:
      return "errored";
    case BatchResult::kCanceled:
      return "canceled";
    case BatchResult::kExpired:
      return "expired";
  }
  return "errored";
}

std::expected<std::vector<BatchRequest>, ApiError> parse_batch(std::string_view body) {
  const auto parsed = parse_json(body);
  if (!parsed) return std::unexpected(parsed.error());
  const boost::json::object* members = parsed->if_object();
  if (members == nullptr) {
    return std::unexpected(invalid_request("The request body should be a JSON object"));
  }
  auto requests = parse_requests(*members, body);
  if (!requests) return std::unexpected(to_error(requests.error()));
  return *std::move(requests);
}

std::string batch_body(const Batch& batch) {
  const bool ended = batch.ended_at.has_value();
  std::string out = R"({"id":)";
  append_json(out, batch.id);
  out += R"(,"type":"message_batch","processing_status":)";
  append_json(out, ended ? "ended" : batch.cancel_initiated_at ? "canceling" : "in_progress");
  out += R"(,"request_counts":{"processing":)";
  append_json(out, ended ? 0 : batch.requests);
  for (std::size_t i = 0; i < kBatchResults.size(); ++i) {
    out += ',';
    append_json(out, name(kBatchResults[i]));
    out += ':';
    append_json(out, ended ? batch.tally[i] : 0);
  }
  out += R"(},"created_at":)";
  append_json(out, batch.created_at);
  out += R"(,"expires_at":)";
  append_json(out, batch.expires_at);
  out += R"(,"ended_at":)";
  append_optional(out, batch.ended_at);
  out += R"(,"cancel_initiated_at":)";
  append_optional(out, batch.cancel_initiated_at);
  out += R"(,"archived_at":null,"results_url":)";
  append_optional(out, ended ? std::optional(batch.results_url) : std::nullopt);
  out += '}';
  return out;
}

std::string deleted_batch_body(std::string_view id) {
  std::string out = R"({"id":)";
  append_json(out, id);
  out += R"(,"type":"message_batch_deleted"})";
  return out;
}

std::string succeeded_line(std::string_view custom_id, std::string_view message) {
  std::string line = line_of(custom_id, BatchResult::kSucceeded);
  line += R"(,"message":)";
  line += message;
  line += "}}";
  return line;
}

std::string errored_line(std::string_view custom_id, const ApiError& error,
                         std::string_view request_id) {
  std::string line = line_of(custom_id, BatchResult::kErrored);
  line += R"(,"error":)";
  line += error_body(error, request_id);
  line += "}}";
  return line;
}

std::string unprocessed_line(std::string_view custom_id, BatchResult result) {
  PENSIEVE_CHECK(result == BatchResult::kCanceled || result == BatchResult::kExpired);
  return line_of(custom_id, result) + "}}";
}

std::optional<BatchResult> result_of_line(std::string_view line) {
  if (!line.starts_with(kCustomId) || !line.ends_with("}}")) return std::nullopt;
  const std::size_t id_end = line.find('"', kCustomId.size());
  if (id_end == std::string_view::npos) return std::nullopt;
  std::string_view rest = line.substr(id_end);
  if (!rest.starts_with(kResult)) return std::nullopt;
  rest.remove_prefix(kResult.size());
  for (const BatchResult result : kBatchResults) {
    if (rest.starts_with(name(result)) && rest.substr(name(result).size()).starts_with('"')) {
      return result;
    }
  }
  return std::nullopt;
}

std::string request_line(const BatchRequest& request) {
  return fmt::format("{}{}{}{}}}", kCustomId, request.custom_id, kParams, request.params);
}

BatchRequest request_of_line(std::string_view line) {
  if (!line.starts_with(kCustomId) || !line.ends_with('}')) return {};
  const std::size_t id_end = line.find('"', kCustomId.size());
  if (id_end == std::string_view::npos) return {};
  const std::string_view rest = line.substr(id_end);
  if (!rest.starts_with(kParams)) return {};
  const std::string_view params = rest.substr(kParams.size());
  return {std::string(line.substr(kCustomId.size(), id_end - kCustomId.size())),
          std::string(params.substr(0, params.size() - 1))};
}

}  // namespace pensieve::api
