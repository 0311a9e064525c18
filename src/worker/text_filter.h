// Between sampled bytes and the client: whole UTF-8 characters only, and nothing of a stop
// sequence.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pensieve::worker {

/// Holds back what may still become a stop sequence or the rest of a UTF-8 character, and lets go
/// of everything else at once. Bytes that can never be UTF-8 come out as U+FFFD.
///
/// Holds at most the longest stop sequence plus three bytes. Not thread-safe.
class TextFilter {
 public:
  /// REQUIRES: no stop sequence is empty.
  explicit TextFilter(std::vector<std::string> stop_sequences);

  /// Takes the next bytes and returns the text that may be sent now. After a stop sequence has
  /// been met, nothing more comes out.
  std::string push(std::string_view bytes);

  /// At the end of generation: what is still held back, an unfinished character as U+FFFD.
  std::string finish();

  /// The stop sequence that was met, if any: the one that is complete first, of those that end
  /// together the longest.
  const std::optional<std::string>& met() const { return met_; }

 private:
  std::string take(std::size_t bytes);
  /// Where a stop sequence that is not complete yet may begin; held_.size() where none can.
  std::size_t start_of_partial_stop() const;

  std::vector<std::string> stop_sequences_;
  std::string held_;
  std::optional<std::string> met_;
};

/// `text` with every byte that is not part of a valid UTF-8 character replaced by U+FFFD. Where
/// `incomplete` is given, a character that is cut off at the end is left out and its length stored
/// there. Overlong forms and surrogates are invalid (RFC 3629).
std::string valid_utf8(std::string_view text, std::size_t* incomplete = nullptr);

}  // namespace pensieve::worker
