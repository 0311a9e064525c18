#include "api/answer_format.h"

namespace pensieve::api {

std::string MessagesFormat::block_start(std::uint32_t index, const AnswerBlock& block) {
  switch (block.kind) {
    case AnswerBlock::Kind::kText:
      return text_block_start_event(index);
    case AnswerBlock::Kind::kThinking:
      return thinking_block_start_event(index);
    case AnswerBlock::Kind::kServerToolUse:
      return server_tool_use_block_start_event(index, block.id, block.name);
    case AnswerBlock::Kind::kFailedSearch:
      return failed_search_block_start_event(index, block.id);
    case AnswerBlock::Kind::kToolUse:
      break;
  }
  return tool_use_block_start_event(index, block.id, block.name);
}

std::string MessagesFormat::block_delta(std::uint32_t index, AnswerBlock::Kind kind,
                                        std::string_view text) {
  switch (kind) {
    case AnswerBlock::Kind::kText:
      return text_delta_event(index, text);
    case AnswerBlock::Kind::kThinking:
      return thinking_delta_event(index, text);
    case AnswerBlock::Kind::kFailedSearch:
      return {};
    case AnswerBlock::Kind::kServerToolUse:
    case AnswerBlock::Kind::kToolUse:
      break;
  }
  return input_json_delta_event(index, text);
}

}  // namespace pensieve::api
