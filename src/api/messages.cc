#include "api/messages.h"

#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "api/json.h"
#include "api/prompt.h"
#include "api/web_search.h"

namespace pensieve::api {
namespace {

using boost::json::object;
using boost::json::value;

constexpr std::size_t kModelBytesMax = 256;
constexpr std::size_t kStopSequencesMax = 64;
constexpr std::size_t kStopSequenceBytesMax = 1024;

template <class T>
using Field = std::expected<T, Refusal>;

Field<std::string> parse_model(const object& body) {
  const auto model = require_string(body, "model");
  if (!model) return std::unexpected(model.error());
  if (model->empty()) return refuse("model", "String should have at least 1 character");
  if (model->size() > kModelBytesMax) {
    return refuse("model", fmt::format("String should have at most {} bytes", kModelBytesMax));
  }
  return std::string(*model);
}

Field<std::uint32_t> parse_max_tokens(const object& body) {
  const auto field = require(body, "max_tokens");
  if (!field) return std::unexpected(field.error());
  const std::optional<double> tokens = whole_number_from(**field);
  if (!tokens) return refuse("max_tokens", "Input should be a valid integer");
  if (*tokens < 0) return refuse("max_tokens", "Input should be greater than or equal to 0");
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  return *tokens >= kMost ? kMost : static_cast<std::uint32_t>(*tokens);
}

Field<std::optional<float>> parse_fraction(const object& body, std::string_view key, double most) {
  const value* field = find(body, key);
  if (field == nullptr) return std::nullopt;
  const std::optional<double> number = number_from(*field);
  if (!number) return refuse(key, "Input should be a valid number");
  if (*number < 0) return refuse(key, "Input should be greater than or equal to 0");
  if (*number > most) {
    return refuse(key, fmt::format("Input should be less than or equal to {}", most));
  }
  return static_cast<float>(*number);
}

/// A whole number, at least `least`.
Field<std::optional<double>> parse_integer(const object& body, std::string_view key, double least) {
  const value* field = find(body, key);
  if (field == nullptr) return std::nullopt;
  const std::optional<double> number = whole_number_from(*field);
  if (!number) return refuse(key, "Input should be a valid integer");
  if (*number < least) {
    return refuse(key, fmt::format("Input should be greater than or equal to {}", least));
  }
  return number;
}

/// 0 and -1 are how other servers spell "no limit", which is not the same as "the model's default".
std::int32_t top_k_from(double number) {
  constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();
  return number < 1 || number >= kNoLimit ? kNoLimit : static_cast<std::int32_t>(number);
}

/// OpenAI's seeds have 64 bits: the same number gives the same seed.
std::uint32_t seed_from(double number) {
  constexpr double kSeeds = 4294967296.0;
  return static_cast<std::uint32_t>(std::fmod(number, kSeeds));
}

Field<engine::Sampling> parse_sampling(const object& body) {
  engine::Sampling sampling;
  const auto temperature = parse_fraction(body, "temperature", 2);
  if (!temperature) return std::unexpected(temperature.error());
  sampling.temperature = *temperature;

  const auto top_p = parse_fraction(body, "top_p", 1);
  if (!top_p) return std::unexpected(top_p.error());
  sampling.top_p = *top_p;
  // 0 means the likeliest token alone; so does the smallest positive number, which engines take.
  if (sampling.top_p == 0.0F) sampling.top_p = std::numeric_limits<float>::min();

  const auto top_k = parse_integer(body, "top_k", -1);
  if (!top_k) return std::unexpected(top_k.error());
  if (*top_k) sampling.top_k = top_k_from(**top_k);

  const auto seed = parse_integer(body, "seed", -1);
  if (!seed) return std::unexpected(seed.error());
  if (*seed && **seed >= 0) sampling.seed = seed_from(**seed);
  return sampling;
}

Field<std::vector<std::string>> parse_stop_sequences(const object& body) {
  constexpr std::string_view kKey = "stop_sequences";
  std::vector<std::string> sequences;
  const value* field = find(body, kKey);
  if (field == nullptr) return sequences;
  const boost::json::array* list = field->if_array();
  if (list == nullptr) return refuse(kKey, "Input should be a valid list");
  if (list->size() > kStopSequencesMax) {
    return refuse(kKey, fmt::format("List should have at most {} items", kStopSequencesMax));
  }
  for (std::size_t i = 0; i < list->size(); ++i) {
    const boost::json::string* text = (*list)[i].if_string();
    const std::string item = fmt::format("{}.{}", kKey, i);
    if (text == nullptr) return refuse(item, "Input should be a valid string");
    const std::string_view sequence(text->data(), text->size());
    if (sequence.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos) {
      return refuse(kKey, "each stop sequence must contain non-whitespace");
    }
    if (sequence.size() > kStopSequenceBytesMax) {
      return refuse(item,
                    fmt::format("String should have at most {} bytes", kStopSequenceBytesMax));
    }
    sequences.emplace_back(sequence);
  }
  return sequences;
}

Field<bool> parse_stream(const object& body) {
  const value* field = find(body, "stream");
  if (field == nullptr) return false;
  if (!field->is_bool()) return refuse("stream", "Input should be a valid boolean");
  return field->get_bool();
}

/// Fields that change what the messages mean: to ignore them would lose something in silence.
std::expected<void, ApiError> check_supported(const object& body) {
  if (find(body, "thread") != nullptr) {
    // The SDKs know this error by its code and send the whole conversation instead.
    ApiError error = invalid_request("This server does not support message threads");
    error.error_code = "thread_unsupported_request";
    error.unsupported = {"thread"};
    return std::unexpected(std::move(error));
  }
  for (const std::string_view key : {"mcp_servers", "container"}) {
    const value* field = find(body, key);
    const bool is_empty_list = field != nullptr && field->is_array() && field->get_array().empty();
    if (field != nullptr && !is_empty_list) {
      return std::unexpected(
          invalid_request(fmt::format("{}: this server does not support it", key)));
    }
  }
  return {};
}

/// The body as an object whose meaning we know.
std::expected<value, ApiError> parse_body(std::string_view body) {
  auto parsed = parse_json(body);
  if (!parsed) return parsed;
  if (!parsed->is_object()) {
    return std::unexpected(invalid_request("The request body should be a JSON object"));
  }
  const auto supported = check_supported(parsed->get_object());
  if (!supported) return std::unexpected(supported.error());
  return parsed;
}

Field<MessagesRequest> parse_messages_object(const object& body, std::string_view raw, bool sees) {
  MessagesRequest request;
  auto model = parse_model(body);
  if (!model) return std::unexpected(model.error());
  request.model = *std::move(model);

  const auto max_tokens = parse_max_tokens(body);
  if (!max_tokens) return std::unexpected(max_tokens.error());
  request.output_tokens_max = *max_tokens;

  auto prompt = parse_prompt(body, raw, sees);
  if (!prompt) return std::unexpected(prompt.error());
  request.prompt = *std::move(prompt);
  request.failed_search = failed_search(body, request.prompt);
  if (request.prompt.continues_last && !request.prompt.rules.json_schema.empty()) {
    return refuse("messages",
                  "the last one cannot be the assistant's where output_config.format "
                  "says what the whole answer is");
  }

  const auto display = parse_thinking(body, request.output_tokens_max, request.prompt.rules);
  if (!display) return std::unexpected(display.error());
  request.thinking_display = *display;
  // What was begun without thoughts goes on without.
  if (request.prompt.continues_last) request.prompt.rules.thinking_tokens_max = 0;

  auto stop_sequences = parse_stop_sequences(body);
  if (!stop_sequences) return std::unexpected(stop_sequences.error());
  request.stop_sequences = *std::move(stop_sequences);

  const auto sampling = parse_sampling(body);
  if (!sampling) return std::unexpected(sampling.error());
  request.sampling = *sampling;

  const auto stream = parse_stream(body);
  if (!stream) return std::unexpected(stream.error());
  request.stream = *stream;
  return request;
}

}  // namespace

std::expected<MessagesRequest, ApiError> parse_messages_request(std::string_view body, bool sees) {
  const auto parsed = parse_body(body);
  if (!parsed) return std::unexpected(parsed.error());
  auto request = parse_messages_object(parsed->get_object(), body, sees);
  if (!request) return std::unexpected(to_error(request.error()));
  return *std::move(request);
}

std::expected<CountTokensRequest, ApiError> parse_count_tokens_request(std::string_view body,
                                                                       bool sees) {
  const auto parsed = parse_body(body);
  if (!parsed) return std::unexpected(parsed.error());
  auto model = parse_model(parsed->get_object());
  if (!model) return std::unexpected(to_error(model.error()));
  auto prompt = parse_prompt(parsed->get_object(), body, sees);
  if (!prompt) return std::unexpected(to_error(prompt.error()));
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  const auto display = parse_thinking(parsed->get_object(), kMost, prompt->rules);
  if (!display) return std::unexpected(to_error(display.error()));
  failed_search(parsed->get_object(), *prompt);  // It adds to the prompt.
  return CountTokensRequest{*std::move(model), *std::move(prompt)};
}

}  // namespace pensieve::api
