#include "cli/http_client.h"

#include <csignal>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "config/api_key.h"

namespace pensieve::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

// On loopback a connection is there at once or never.
constexpr Duration kConnectTimeout = std::chrono::seconds(3);
constexpr std::size_t kGatheredBytesMax = 8 << 20;
constexpr std::size_t kPieceBytes = 16 << 10;
constexpr Duration kClosedPollInterval = std::chrono::milliseconds(50);

/// One exchange. Beast's timeouts work on asynchronous calls only, so each step starts one and
/// runs the context until it is done.
class Exchange {
 public:
  explicit Exchange(const Endpoint& endpoint) : endpoint_(endpoint), stream_(io_), signals_(io_) {}

  std::expected<HttpResponse, HttpError> run(const HttpRequest& request, const BodySink& sink) {
    if (request.interruptible) listen_for_interrupt();
    if (const auto error = connect()) return broken(HttpError::Kind::kUnreachable, error);
    if (const auto error = write(request)) return broken(HttpError::Kind::kUnreachable, error);

    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    stream_.expires_after(request.first_byte_timeout);
    const auto header_error = await(
        [&](auto done) { http::async_read_header(stream_, buffer_, parser, std::move(done)); });
    if (header_error) return broken(HttpError::Kind::kUnreachable, header_error);
    return read_body(request, sink, parser);
  }

  beast::error_code connect() {
    beast::error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(endpoint_.host, std::to_string(endpoint_.port), error);
    if (error) return error;
    stream_.expires_after(kConnectTimeout);
    return await([&](auto done) {
      stream_.async_connect(found, [done](beast::error_code result, const tcp::endpoint&) mutable {
        done(result, 0);
      });
    });
  }

 private:
  /// Runs `start(done)` until done(error, bytes) was called.
  template <class Start>
  beast::error_code await(Start start) {
    std::optional<beast::error_code> result;
    start([&result](beast::error_code error, std::size_t) { result = error; });
    io_.restart();
    while (!result) io_.run_one();
    return *result;
  }

  void listen_for_interrupt() {
    beast::error_code ignored;
    signals_.add(SIGINT, ignored);
    signals_.async_wait([this](beast::error_code error, int) {
      if (error) return;
      interrupted_ = true;
      // What waits on the stream ends with operation_aborted.
      beast::error_code closing;
      stream_.socket().close(closing);
    });
  }

  beast::error_code write(const HttpRequest& request) {
    http::request<http::string_body> message;
    message.method_string(request.method);
    message.target(request.target);
    message.version(11);
    const bool v6 = endpoint_.host.find(':') != std::string::npos;
    message.set(http::field::host, v6 ? fmt::format("[{}]:{}", endpoint_.host, endpoint_.port)
                                      : fmt::format("{}:{}", endpoint_.host, endpoint_.port));
    message.set(http::field::user_agent, "pensieve-cli");
    message.set(http::field::connection, "close");
    if (!endpoint_.api_key.empty()) message.set("x-api-key", endpoint_.api_key);
    if (!request.body.empty()) {
      message.set("anthropic-version", "2023-06-01");
      message.set(http::field::content_type, "application/json");
      message.body() = request.body;
    }
    message.prepare_payload();
    stream_.expires_after(request.first_byte_timeout);
    return await([&](auto done) { http::async_write(stream_, message, std::move(done)); });
  }

  std::expected<HttpResponse, HttpError> read_body(
      const HttpRequest& request, const BodySink& sink,
      http::response_parser<http::buffer_body>& parser) {
    HttpResponse response;
    response.status = parser.get().result_int();
    const bool streams = sink && response.status / 100 == 2;
    std::string piece(kPieceBytes, '\0');
    while (!parser.is_done()) {
      parser.get().body().data = piece.data();
      parser.get().body().size = piece.size();
      parser.get().body().more = true;
      stream_.expires_after(request.idle_timeout);
      // Not async_read: that waits until `piece` is full, and words would come in lumps.
      const auto error = await(
          [&](auto done) { http::async_read_some(stream_, buffer_, parser, std::move(done)); });
      const std::string_view got(piece.data(), piece.size() - parser.get().body().size);
      if (streams) {
        if (!got.empty()) sink(got);
      } else if (response.body.size() + got.size() > kGatheredBytesMax) {
        return too_large();
      } else {
        response.body += got;
      }
      if (error && error != http::error::need_buffer) {
        return broken(HttpError::Kind::kBroken, error);
      }
    }
    return response;
  }

  std::unexpected<HttpError> too_large() const {
    return std::unexpected(HttpError{HttpError::Kind::kBroken,
                                     fmt::format("{}: the answer is too large", endpoint_.url())});
  }

  std::unexpected<HttpError> broken(HttpError::Kind kind, const beast::error_code& error) const {
    if (interrupted_) return std::unexpected(HttpError{HttpError::Kind::kInterrupted, "Ctrl+C"});
    const bool timeout = error == beast::error::timeout;
    const std::string reason = timeout                               ? "no answer in time"
                               : error == http::error::end_of_stream ? "closed without an answer"
                               : error == http::error::partial_message
                                   ? "the connection broke in the middle of the answer"
                                   : error.message();
    return std::unexpected(HttpError{timeout ? HttpError::Kind::kTimeout : kind,
                                     fmt::format("{}: {}", endpoint_.url(), reason)});
  }

  const Endpoint& endpoint_;
  asio::io_context io_{1};
  beast::tcp_stream stream_;
  asio::signal_set signals_;
  beast::flat_buffer buffer_;
  bool interrupted_ = false;
};

}  // namespace

std::string Endpoint::url() const {
  const bool v6 = host.find(':') != std::string::npos;
  return v6 ? fmt::format("http://[{}]:{}", host, port) : fmt::format("http://{}:{}", host, port);
}

Endpoint endpoint_of(const config::Settings& settings) {
  std::string host = settings.host;
  if (host == "0.0.0.0") host = "127.0.0.1";
  if (host == "::") host = "::1";
  return {std::move(host), settings.port,
          config::key_of_commands(settings.server.api_key, settings.server.keys)};
}

std::expected<HttpResponse, HttpError> send(const Endpoint& endpoint, const HttpRequest& request,
                                            const BodySink& sink) {
  return Exchange(endpoint).run(request, sink);
}

bool wait_until_closed(const Endpoint& endpoint, Duration limit) {
  const TimePoint deadline = steady_clock().now() + limit;
  while (!Exchange(endpoint).connect()) {
    if (steady_clock().now() >= deadline) return false;
    asio::io_context io;
    asio::steady_timer timer(io, kClosedPollInterval);
    timer.wait();
  }
  return true;
}

std::string why_not_bindable(const std::string& host, std::uint16_t port) {
  beast::error_code error;
  asio::io_context io;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error) return error.message();
  const tcp::endpoint address = found.begin()->endpoint();
  tcp::acceptor acceptor(io);
  acceptor.open(address.protocol(), error);
  // As the server does it: a port whose last connections are still closing is not in use.
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(address, error);
  if (!error) acceptor.listen(1, error);
  return error ? error.message() : std::string();
}

}  // namespace pensieve::cli
