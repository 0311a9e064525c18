#include "cli/server_call.h"

#include <fmt/core.h>
#include <boost/json/parse.hpp>

namespace pensieve::cli {

namespace json = boost::json;

namespace {

const json::value kNull;

}  // namespace

Failure failure_of(const HttpError& error) {
  switch (error.kind) {
    case HttpError::Kind::kUnreachable:
      return {ExitCode::kUnreachable,
              fmt::format("no server: {}\nStart one with `pensieve serve`, or name its address "
                          "with --host and --port.",
                          error.message)};
    case HttpError::Kind::kTimeout:
      return {ExitCode::kUnreachable,
              fmt::format("{}\nThe server is there but does not answer; `pensieve doctor` looks "
                          "into it.",
                          error.message)};
    case HttpError::Kind::kInterrupted:
      return {ExitCode::kInterrupted, "interrupted"};
    case HttpError::Kind::kBroken:
      break;
  }
  return {ExitCode::kFailure, error.message};
}

Failure failure_of(const HttpResponse& response) {
  const auto body = parse_json(response.body);
  if (!body || !member(*body, "error").is_object()) {
    return {ExitCode::kFailure, fmt::format("the server answered with HTTP {} and no reason; is "
                                            "it a Pensieve?",
                                            response.status)};
  }
  const json::value& error = member(*body, "error");
  const std::string message = text_member(error, "message", "no reason given");
  const std::string type = text_member(error, "type");
  if (response.status == 503 && type == "overloaded_error") {
    return {ExitCode::kRefusedForMemory,
            message +
                "\nClose what needs memory and try again; `pensieve ps` shows what the "
                "server holds, `pensieve clear-cache` frees its caches."};
  }
  if (response.status == 503) return {ExitCode::kDoesNotFit, message};
  if (response.status == 401) {
    return {ExitCode::kUsage, message +
                                  "\nSet the server's key in [server] api_key or keys (also: "
                                  "PENSIEVE_SERVER_API_KEY, PENSIEVE_SERVER_KEYS)."};
  }
  if (response.status == 404) return {ExitCode::kModelUnavailable, message};
  if (response.status == 529) return {ExitCode::kFailure, message + "\nTry again in a moment."};
  return {ExitCode::kFailure, message};
}

std::expected<json::value, Failure> call(const Endpoint& endpoint, const HttpRequest& request) {
  const auto response = send(endpoint, request);
  if (!response) return std::unexpected(failure_of(response.error()));
  if (response->status / 100 != 2) return std::unexpected(failure_of(*response));
  return parse_json(response->body);
}

std::expected<json::value, Failure> parse_json(std::string_view text) {
  json::error_code error;
  json::value value = json::parse(text, error);
  if (!error) return value;
  return std::unexpected(Failure{
      ExitCode::kFailure,
      fmt::format("the answer is no JSON ({}); is it a Pensieve that answers?", error.message())});
}

const json::value& member(const json::value& value, std::string_view name) {
  const json::object* object = value.if_object();
  if (object == nullptr) return kNull;
  const json::value* found = object->if_contains(name);
  return found == nullptr ? kNull : *found;
}

std::string text_member(const json::value& value, std::string_view name,
                        std::string_view otherwise) {
  const json::string* text = member(value, name).if_string();
  return std::string(text == nullptr ? otherwise : std::string_view(*text));
}

std::optional<std::uint64_t> count_member(const json::value& value, std::string_view name) {
  const json::value& found = member(value, name);
  if (const std::uint64_t* count = found.if_uint64()) return *count;
  const std::int64_t* count = found.if_int64();
  if (count == nullptr || *count < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*count);
}

}  // namespace pensieve::cli
