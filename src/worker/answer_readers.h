// What reads the text of each running answer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "engine/answer_parser.h"
#include "engine/engine.h"

namespace pensieve::worker {

/// One reader for each request that may call tools; the text of all others is text.
///
/// Thread-safety: open() and close() from any thread; read() and finish() from one thread for each
/// request.
class AnswerReaders {
 public:
  /// The engine's own parser, else that of calls in text form; null where nothing may be called.
  static std::shared_ptr<engine::AnswerParser> reader_for(const engine::Prompt& prompt,
                                                          engine::Prepared& prepared);

  void open(std::uint32_t id, std::shared_ptr<engine::AnswerParser> reader);
  void close(std::uint32_t id);

  std::vector<engine::AnswerPiece> read(std::uint32_t id, std::string_view text);
  /// What was held back; the answer is over.
  std::vector<engine::AnswerPiece> finish(std::uint32_t id);

 private:
  std::shared_ptr<engine::AnswerParser> find(std::uint32_t id);

  std::mutex mutex_;
  std::map<std::uint32_t, std::shared_ptr<engine::AnswerParser>> readers_;  // By mutex_.
};

}  // namespace pensieve::worker
