// libFuzzer: whatever bytes a client sends, each parser of the API makes a request or a 4xx of it,
// for a model that reads images and for one that does not.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/batches.h"
#include "api/chat_request.h"
#include "api/embeddings.h"
#include "api/messages.h"
#include "api/response.h"
#include "base/base64.h"

namespace {

void require(bool claim) {
  if (!claim) std::abort();
}

void check(const pensieve::api::ApiError& error) {
  require(error.status >= 400 && error.status < 500);
  require(!error.message.empty());
  require(!pensieve::api::error_body(error, "req_fuzz").empty());
}

/// What the engine takes for granted of a prompt: `sees` as it was parsed.
void check(const pensieve::engine::Prompt& prompt, bool sees) {
  require(!prompt.messages.empty());
  std::size_t images = 0;
  for (const auto& message : prompt.messages) {
    std::size_t at = 0;
    for (const auto& image : message.images) {
      require(sees);
      require(at <= image.at && image.at <= message.text.size());
      require(pensieve::from_base64(image.base64).has_value());
      require(image.media_type.starts_with("image/") && !image.field.empty());
      at = image.at;
      ++images;
    }
  }
  require(images <= pensieve::engine::kImagesMax);
}

void parse(std::string_view body, bool sees) {
  if (const auto request = pensieve::api::parse_messages_request(body, sees)) {
    check(request->prompt, sees);
    require(request->prompt.rules.thinking_tokens_max <= request->output_tokens_max);
  } else {
    check(request.error());
  }
  if (const auto counted = pensieve::api::parse_count_tokens_request(body, sees)) {
    check(counted->prompt, sees);
  } else {
    check(counted.error());
  }
  if (const auto chat = pensieve::api::parse_chat_request(body, sees)) {
    check(chat->messages.prompt, sees);
    require(chat->messages.prompt.rules.thinking_tokens_max <= chat->messages.output_tokens_max);
  } else {
    check(chat.error());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  parse(body, false);
  parse(body, true);
  if (const auto embeddings = pensieve::api::parse_embeddings_request(body)) {
    require(!embeddings->inputs.empty());
    for (const auto& input : embeddings->inputs) {
      require(input.text.empty() != input.tokens.empty());
    }
  } else {
    check(embeddings.error());
  }
  if (const auto batch = pensieve::api::parse_batch(body)) {
    require(!batch->empty());
    for (const auto& request : *batch) {
      const auto back = pensieve::api::request_of_line(pensieve::api::request_line(request));
      require(back.custom_id == request.custom_id && back.params == request.params);
    }
  } else {
    check(batch.error());
  }
  pensieve::api::result_of_line(body);
  pensieve::api::request_of_line(body);
  if (const auto page = pensieve::api::parse_page(body); !page) check(page.error());
  require(pensieve::api::percent_decoded(body).size() <= size);
  return 0;
}
