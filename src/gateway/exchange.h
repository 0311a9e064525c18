// One HTTP request and the way to answer it, without the HTTP library: routes see only this.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "gateway/buffer_account.h"

namespace pensieve::gateway {

/// A body up to this size is read before anything is decided. Choice: most requests that are no
/// conversation are smaller, and their refusals are cheaper on a connection that lives on.
inline constexpr std::size_t kSmallBodyBytes = 48U << 10;
static_assert(request_bytes(kSmallBodyBytes) <= BufferAccount::kUnrefusedBytes);

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;
  std::string path;   // Still percent-encoded, without the query.
  std::string query;  // What follows '?', still percent-encoded.
  Headers headers;    // Names in lower case.
  std::string body;

  /// Empty where there is no such header. `name` in lower case.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  Headers headers;
};

/// The answering side of one request. Exactly one of respond() and begin_stream() is called.
///
/// Thread-safety: the connection's executor only.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;

  /// Of request(), to be put right in place; as long as it was.
  virtual std::string& request_body() = 0;

  /// Frees the request's body once all that matters of it is known in another form.
  virtual void release_body() = 0;

  /// What this request may take in the gateway; request_bytes() of its body at first. Whoever takes
  /// more grows it before, and whoever frees something shrinks it. Given back with the answer's
  /// end.
  virtual BufferCharge& charge() = 0;

  virtual boost::asio::awaitable<void> respond(HttpResponse response) = 0;

  /// Sends status 200 and the headers; more follows by write(). Each returns false where the client
  /// is gone or did not read for too long: the request should end then. Of an answer to HEAD only
  /// the headers are sent.
  virtual boost::asio::awaitable<bool> begin_stream(Headers headers) = 0;
  virtual boost::asio::awaitable<bool> write(std::string_view data) = 0;
  virtual boost::asio::awaitable<bool> end_stream() = 0;
  /// In place of end_stream(): the client shall see that the rest is missing.
  virtual void cut_stream() = 0;
  /// Whether the client can tell a stream that was cut from a whole one.
  virtual bool shows_cuts() const = 0;

  virtual bool client_gone() const = 0;

  /// `callback` runs once when the client hangs up, also while nothing is being written. An empty
  /// function takes it back.
  virtual void on_client_gone(std::function<void()> callback) = 0;
};

/// Answers requests. Implemented by Service; the connection knows nothing else of the program.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual boost::asio::awaitable<void> serve(Exchange& exchange) = 0;
  /// What the connection itself answers where there is no proper request: 400, 408, 413, 431.
  /// `head` is empty where that was not read.
  virtual HttpResponse protocol_error(const HttpRequest& head, unsigned status,
                                      std::string message) = 0;
  /// Asked before a body of more than kSmallBodyBytes is read: the answer where the head alone says
  /// that it would be read for nothing. `head` has no body.
  virtual std::optional<HttpResponse> refuse_unread(const HttpRequest& head) = 0;
  /// What the connection answers where there is no room for a request.
  virtual HttpResponse refuse_for_shortage(const HttpRequest& head,
                                           const BufferShortage& shortage) = 0;
  virtual BufferAccount& buffers() = 0;
};

}  // namespace pensieve::gateway
