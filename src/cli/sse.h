// Server-sent events out of a stream that arrives in pieces.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace pensieve::cli {

struct SseEvent {
  std::string name;  // Empty where the event has none.
  std::string data;  // Lines joined by '\n'.
};

/// Calls `on_event` for each complete event; an event that the stream's end cuts off never counts.
class SseParser {
 public:
  /// No event of ours is near this size; a stream without line ends must not fill the memory.
  static constexpr std::size_t kEventBytesMax = 16 << 20;

  explicit SseParser(std::function<void(const SseEvent&)> on_event);

  /// False once an event has grown over kEventBytesMax; the stream is useless then.
  [[nodiscard]] bool feed(std::string_view bytes);

 private:
  void take_line(std::string_view line);

  std::function<void(const SseEvent&)> on_event_;
  std::string line_;
  SseEvent event_;
  bool has_data_ = false;
  bool after_cr_ = false;  // A '\n' that follows belongs to the same line end.
};

}  // namespace pensieve::cli
