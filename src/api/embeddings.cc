#include "api/embeddings.h"

#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <boost/json.hpp>

#include "api/json.h"
#include "base/base64.h"

namespace pensieve::api {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

template <class T>
using Field = std::expected<T, Refusal>;

constexpr std::size_t kNameBytesMax = 256;

/// What the inputs may still have in all.
struct Room {
  std::size_t bytes = kEmbeddingTextBytesMax;
  std::size_t tokens = kEmbeddingTokensMax;
};

Field<EmbeddingInput> parse_text(const boost::json::string& text, Room& room) {
  if (text.empty()) return refuse("", "String should have at least 1 character");
  if (text.size() > room.bytes) {
    return refuse(
        "", fmt::format("all texts together should have at most {} bytes", kEmbeddingTextBytesMax));
  }
  room.bytes -= text.size();
  return EmbeddingInput{.text = std::string(text.data(), text.size()), .tokens = {}};
}

Field<EmbeddingInput> parse_tokens(const array& ids, Room& room) {
  if (ids.empty()) return refuse("", "List should have at least 1 item");
  if (ids.size() > room.tokens) {
    return refuse(
        "", fmt::format("all inputs together should have at most {} tokens", kEmbeddingTokensMax));
  }
  room.tokens -= ids.size();
  EmbeddingInput input;
  input.tokens.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::optional<double> id = whole_number_from(ids[i]);
    if (!id || *id < 0 || *id > std::numeric_limits<engine::Token>::max()) {
      return std::unexpected(within(i, Refusal{"", "Input should be a token id"}));
    }
    input.tokens.push_back(static_cast<engine::Token>(*id));
  }
  return input;
}

/// One of a list: all of its items are of the first one's kind.
Field<EmbeddingInput> parse_item(const value& item, bool are_texts, Room& room) {
  if (are_texts) {
    const boost::json::string* const text = item.if_string();
    if (text == nullptr) return refuse("", "Input should be a string, as the first one is");
    return parse_text(*text, room);
  }
  const array* const ids = item.if_array();
  if (ids == nullptr) return refuse("", "Input should be a list of token ids");
  return parse_tokens(*ids, room);
}

Field<std::vector<EmbeddingInput>> parse_inputs(const value& input) {
  Room room;
  const array* const list = input.if_array();
  const bool is_one = list != nullptr && !list->empty() && (*list)[0].is_number();
  if (is_one || input.is_string()) {
    Field<EmbeddingInput> one =
        is_one ? parse_tokens(*list, room) : parse_text(input.get_string(), room);
    if (!one) return std::unexpected(one.error());
    std::vector<EmbeddingInput> inputs;
    inputs.push_back(*std::move(one));
    return inputs;
  }
  if (list == nullptr) return refuse("", "Input should be a string or a list");
  if (list->empty() || list->size() > kEmbeddingInputsMax) {
    return refuse("", fmt::format("List should have 1 to {} items", kEmbeddingInputsMax));
  }
  std::vector<EmbeddingInput> inputs;
  inputs.reserve(list->size());
  for (std::size_t i = 0; i < list->size(); ++i) {
    Field<EmbeddingInput> item = parse_item((*list)[i], (*list)[0].is_string(), room);
    if (!item) return std::unexpected(within(i, item.error()));
    inputs.push_back(*std::move(item));
  }
  return inputs;
}

Field<std::optional<std::uint32_t>> parse_dimensions(const object& body) {
  const value* const field = find(body, "dimensions");
  if (field == nullptr) return std::nullopt;
  const std::optional<double> number = whole_number_from(*field);
  if (!number || *number < 1) {
    return refuse("dimensions", "Input should be a whole number of at least 1");
  }
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  return *number >= kMost ? kMost : static_cast<std::uint32_t>(*number);
}

Field<EmbeddingsRequest> parse_request(const object& body) {
  EmbeddingsRequest request;
  const auto model = require_string(body, "model");
  if (!model) return std::unexpected(model.error());
  if (model->empty() || model->size() > kNameBytesMax) {
    return refuse("model", fmt::format("String should have 1 to {} bytes", kNameBytesMax));
  }
  request.model = *model;
  if (const value* const format = find(body, "encoding_format")) {
    const boost::json::string* const name = format->if_string();
    request.base64 = name != nullptr && *name == "base64";
    if (name == nullptr || (!request.base64 && *name != "float")) {
      return refuse("encoding_format", "Input should be \"float\" or \"base64\"");
    }
  }
  const auto dimensions = parse_dimensions(body);
  if (!dimensions) return std::unexpected(dimensions.error());
  request.dimensions = *dimensions;
  const auto input = require(body, "input");
  if (!input) return std::unexpected(input.error());
  auto inputs = parse_inputs(**input);
  if (!inputs) return std::unexpected(within("input", inputs.error()));
  request.inputs = *std::move(inputs);
  return request;
}

/// The numbers as 32-bit floats, the least significant byte first.
std::string bytes_of(std::span<const float> vector) {
  std::string bytes;
  bytes.reserve(4 * vector.size());
  for (const float number : vector) {
    const auto bits = std::bit_cast<std::uint32_t>(number);
    for (unsigned shift = 0; shift < 32; shift += 8) {
      bytes += static_cast<char>(static_cast<unsigned char>(bits >> shift));
    }
  }
  return bytes;
}

}  // namespace

std::expected<EmbeddingsRequest, ApiError> parse_embeddings_request(std::string_view body) {
  const auto parsed = parse_json(body);
  if (!parsed) return std::unexpected(parsed.error());
  const object* const members = parsed->if_object();
  if (members == nullptr) {
    return std::unexpected(invalid_request("the body should be a JSON object"));
  }
  auto request = parse_request(*members);
  if (!request) return std::unexpected(to_error(request.error()));
  return *std::move(request);
}

void EmbeddingsAnswer::append(std::span<const float> vector) {
  data_ += data_.empty() ? R"({"object":"list","data":[)" : ",";
  data_ += R"({"object":"embedding","index":)";
  append_json(data_, count_++);
  data_ += R"(,"embedding":)";
  if (base64_) {
    data_ += '"';
    data_ += to_base64(bytes_of(vector));
    data_ += R"("})";
    return;
  }
  char separator = '[';
  for (const float number : vector) {
    // The shortest text that is read back as the same number.
    std::array<char, 32> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
    data_ += separator;
    data_.append(text.data(), end);
    separator = ',';
  }
  data_ += "]}";
}

std::string EmbeddingsAnswer::finish(std::string_view model, std::uint64_t tokens) {
  data_ += R"(],"model":)";
  append_json(data_, model);
  data_ += R"(,"usage":{"prompt_tokens":)";
  append_json(data_, tokens);
  data_ += R"(,"total_tokens":)";
  append_json(data_, tokens);
  data_ += "}}";
  return std::move(data_);
}

}  // namespace pensieve::api
