#include "worker/answer_readers.h"

#include <string>
#include <utility>

#include "worker/call_parser.h"

namespace pensieve::worker {

std::shared_ptr<engine::AnswerParser> AnswerReaders::reader_for(const engine::Prompt& prompt,
                                                                engine::Prepared& prepared) {
  if (prepared.parser) return std::move(prepared.parser);
  if (prompt.tools.empty() || prompt.rules.tool_choice == engine::ToolChoice::kNone) return nullptr;
  return std::make_shared<CallParser>(prepared.shape ? CallParser::Trust::kConstrained
                                                     : CallParser::Trust::kFree);
}

void AnswerReaders::open(std::uint32_t id, std::shared_ptr<engine::AnswerParser> reader) {
  if (!reader) return;
  const std::lock_guard lock(mutex_);
  readers_[id] = std::move(reader);
}

void AnswerReaders::close(std::uint32_t id) {
  const std::lock_guard lock(mutex_);
  readers_.erase(id);
}

std::vector<engine::AnswerPiece> AnswerReaders::read(std::uint32_t id, std::string_view text) {
  std::vector<engine::AnswerPiece> pieces;
  if (const auto reader = find(id)) {
    reader->push(text, pieces);
  } else {
    pieces.push_back({engine::AnswerPiece::Kind::kText, std::string(text)});
  }
  return pieces;
}

std::vector<engine::AnswerPiece> AnswerReaders::finish(std::uint32_t id) {
  std::vector<engine::AnswerPiece> pieces;
  if (const auto reader = find(id)) reader->finish(pieces);
  return pieces;
}

std::shared_ptr<engine::AnswerParser> AnswerReaders::find(std::uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = readers_.find(id);
  return found == readers_.end() ? nullptr : found->second;
}

}  // namespace pensieve::worker
