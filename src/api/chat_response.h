// What the server says on /v1/chat/completions and /v1/embeddings, as OpenAI's clients read it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "api/answer_format.h"
#include "api/error.h"
#include "base/clock.h"

namespace pensieve::api {

/// One choice. Text is `content`, thinking is `reasoning_content` (as llama-server, vLLM and
/// DeepSeek have it), calls are `tool_calls`. A call that was cut off is left out of a whole
/// answer; in a stream its arguments are incomplete and finish_reason is not "tool_calls".
class ChatFormat final : public AnswerFormat {
 public:
  ChatFormat(WallTime created, bool include_usage);

  std::string_view id() const override { return id_; }
  std::string whole(std::string_view model, std::span<const AnswerBlock> blocks, const Stop& stop,
                    const Usage& usage) override;
  std::string whole_error(const ApiError& error, std::string_view request_id) override;
  std::string start(std::string_view model, const Usage& usage) override;
  std::string ping() override;
  std::string block_start(std::uint32_t index, const AnswerBlock& block) override;
  std::string block_delta(std::uint32_t index, AnswerBlock::Kind kind,
                          std::string_view text) override;
  /// OpenAI's clients know no signatures.
  std::string signature(std::uint32_t, std::string_view) override { return {}; }
  std::string block_stop(std::uint32_t index) override;
  std::string end(const Stop& stop, const Usage& usage) override;
  std::string error(const ApiError& error, std::string_view request_id) override;

 private:
  /// A chunk whose one choice has this delta and finish reason, both JSON.
  std::string chunk(std::string_view delta, std::string_view finish_reason) const;
  std::string head(std::string_view object) const;

  const std::string id_;
  const std::int64_t created_;
  const bool include_usage_;
  std::string model_;
  std::uint32_t calls_ = 0;  // Begun so far; a call's index counts calls alone.
};

/// `{"error":{"message":...,"type":...,"param":null,"code":...}}`; types and codes are ours.
std::string chat_error_body(const ApiError& error);

}  // namespace pensieve::api
