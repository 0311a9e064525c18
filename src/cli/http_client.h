// A small blocking HTTP/1.1 client for the one server that the settings name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"
#include "config/settings.h"

namespace pensieve::cli {

struct Endpoint {
  std::string host;
  std::uint16_t port = 0;
  std::string api_key;  // Sent as x-api-key; empty: none.

  std::string url() const;  // "http://127.0.0.1:7777"
};

/// Where a client reaches the server of these settings: one that listens on every address is asked
/// through loopback, with the key that config::key_of_commands() chooses.
Endpoint endpoint_of(const config::Settings& settings);

struct HttpRequest {
  std::string method = "GET";
  std::string target = "/";
  std::string body = {};  // JSON; none where empty.
  /// Longest wait for the first byte of the answer, and then between two pieces of it.
  Duration first_byte_timeout = std::chrono::seconds(10);
  Duration idle_timeout = std::chrono::seconds(60);
  /// Ctrl+C ends the request (HttpError::Kind::kInterrupted) instead of the process.
  bool interruptible = false;
};

struct HttpResponse {
  unsigned status = 0;
  std::string body;
};

/// Why there is no whole answer.
struct HttpError {
  enum class Kind : std::uint8_t {
    kUnreachable,  // Not one byte of an answer came.
    kTimeout,      // Connected, but silent for too long.
    kBroken,       // The answer ended too early or is no HTTP.
    kInterrupted,  // Ctrl+C.
  };
  Kind kind = Kind::kBroken;
  std::string message;  // Names the address.
};

/// Takes a piece of a 2xx body as it comes.
using BodySink = std::function<void(std::string_view)>;

/// Sends one request on a connection of its own and waits for the answer. The body of a 2xx goes
/// to `sink` where there is one; all else is gathered, up to 8 MiB.
std::expected<HttpResponse, HttpError> send(const Endpoint& endpoint, const HttpRequest& request,
                                            const BodySink& sink = {});

/// Waits until nobody accepts connections there; false when it still does after `limit`.
bool wait_until_closed(const Endpoint& endpoint, Duration limit);

/// Empty where `host:port` can be listened on, else the system's reason.
std::string why_not_bindable(const std::string& host, std::uint16_t port);

}  // namespace pensieve::cli
