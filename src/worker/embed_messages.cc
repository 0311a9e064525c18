#include "worker/embed_messages.h"

#include <bit>
#include <cmath>

#include <boost/json.hpp>

#include "worker/payload_fields.h"

namespace pensieve::worker {
namespace {

namespace json = boost::json;

constexpr std::size_t kNumberBytes = 4;

void put_u32(std::string& out, std::uint32_t value) {
  for (unsigned shift = 0; shift < 32; shift += 8) {
    out += static_cast<char>(static_cast<unsigned char>(value >> shift));
  }
}

std::uint32_t u32_at(std::string_view payload, std::size_t at) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < kNumberBytes; ++i) {
    value |= std::uint32_t{static_cast<unsigned char>(payload[at + i])} << (8 * i);
  }
  return value;
}

}  // namespace

std::string encode(const EmbedRequest& request) {
  json::object object;
  if (request.tokens.empty()) {
    object["text"] = request.text;
  } else {
    object["tokens"] = json::array(request.tokens.begin(), request.tokens.end());
  }
  return json::serialize(object);
}

Result<EmbedRequest> decode_embed_request(std::string_view payload) {
  return decode_payload<EmbedRequest>("embed", payload, [](const PayloadFields& fields) {
    EmbedRequest request;
    const json::value* const tokens = fields.find("tokens");
    if (tokens == nullptr) {
      request.text = fields.text("text");
      return request;
    }
    for (const json::value& token : tokens->as_array()) {
      request.tokens.push_back(token.to_number<engine::Token>());
    }
    if (request.tokens.empty()) throw std::invalid_argument("an empty list of tokens");
    return request;
  });
}

std::string encode(const Embedded& embedded) {
  std::string payload;
  payload.reserve(kNumberBytes * (1 + embedded.embedding.size()));
  put_u32(payload, embedded.input_tokens);
  for (const float value : embedded.embedding) {
    put_u32(payload, std::bit_cast<std::uint32_t>(value));
  }
  return payload;
}

Result<Embedded> decode_embedded(std::string_view payload) {
  if (payload.size() % kNumberBytes != 0 || payload.size() < 2 * kNumberBytes) {
    return fail(Code::kInvalidArgument,
                fmt::format("bad embedded frame: {} bytes are no vector", payload.size()));
  }
  Embedded embedded{u32_at(payload, 0), {}};
  embedded.embedding.reserve(payload.size() / kNumberBytes - 1);
  for (std::size_t at = kNumberBytes; at < payload.size(); at += kNumberBytes) {
    embedded.embedding.push_back(std::bit_cast<float>(u32_at(payload, at)));
    if (std::isfinite(embedded.embedding.back())) continue;
    return fail(Code::kInvalidArgument, "bad embedded frame: a number that is none");
  }
  return embedded;
}

}  // namespace pensieve::worker
