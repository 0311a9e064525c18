// A raw HTTP client for tests: says exactly the bytes it is given and shows what came back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace pensieve::gateway {

struct Answer {
  unsigned status = 0;                         // 0: none came.
  std::map<std::string, std::string> headers;  // Names in lower case.
  std::string body;

  /// Empty where there is no such header.
  std::string header(const std::string& name) const;
};

/// One server-sent event.
struct Event {
  std::string name;
  std::string data;
};

/// One connection to a server on loopback.
///
/// Waiting calls `wait` again and again, which has to take a few milliseconds at most and may let
/// the server of the same thread get on. What does not come within 30 s fails the test.
class HttpProbe {
 public:
  HttpProbe(std::uint16_t port, std::function<void()> wait);
  ~HttpProbe();
  HttpProbe(HttpProbe&& other) noexcept;
  HttpProbe& operator=(HttpProbe&&) = delete;

  bool connected() const { return socket_ >= 0; }

  /// All of it, also while the server does not read. Stops where the server has closed.
  void send(std::string_view bytes);

  /// The next answer, whole: with a length, in chunks, or up to the end of the connection.
  Answer answer();

  /// The next answer's head alone; the body follows by event(), or there is none.
  Answer head();

  /// The next piece of the body that head() began, as it was sent; empty at the end.
  std::string piece() { return body_piece().value_or(std::string()); }

  /// The next event of the body that head() began; empty at the end of the body.
  std::optional<Event> event();

  /// The names of all events up to the end of the body, one space between them.
  std::string event_names();

  /// True where nothing has come so far, nor comes while waiting a little.
  bool is_silent();

  /// Waits for the server's end of the connection. False where an answer comes instead.
  bool closed_by_server();

  /// Nothing more will be sent; answers can still be read.
  void shut_down_sending();
  /// The connection ends, with a reset where the server still sends.
  void hang_up();

 private:
  enum class Framing : std::uint8_t { kNone, kLength, kChunks, kToTheEnd };

  bool receive();  // False at the end of the connection, or where nothing comes.
  bool fill_until(std::string_view mark);
  bool fill(std::size_t bytes);
  std::string take(std::size_t bytes);
  std::optional<std::string> body_piece();

  int socket_ = -1;
  std::function<void()> wait_;
  std::string received_;  // Not taken yet.
  bool ended_ = false;
  Framing framing_ = Framing::kNone;
  std::size_t body_left_ = 0;  // For kLength.
  std::string events_;         // Decoded, not taken yet.
};

/// Requests as text. `headers` are whole lines with their "\r\n".
std::string get(std::string_view path, std::string_view headers = "");
std::string post(std::string_view path, std::string_view body, std::string_view headers = "");

/// POST /v1/messages for the scripted engine: the user says "script: SCRIPT". `members` are added
/// to the JSON, e.g. `"stream":true`.
std::string ask(std::string_view script, std::string_view members = "");
/// The same with "stream":true.
std::string ask_stream(std::string_view script, std::string_view members = "");

/// A port that was free a moment ago.
std::uint16_t free_port();

/// Ids that are new each time become "msg_*" and "req_*".
std::string without_ids(const std::string& text);

}  // namespace pensieve::gateway
