#include "gateway/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <fmt/ostream.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

/// Choice: enough for a client to notice the answer while it is uploading 100 MB on loopback.
constexpr Duration kDiscardMax = std::chrono::seconds(5);
constexpr std::size_t kDiscardBytesMax = 256U << 20;
constexpr std::size_t kDiscardChunkBytes = 64U << 10;
/// What a connection holds that says nothing. Choice: most requests' heads fit.
constexpr std::size_t kFirstReadBytes = 1024;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

HttpRequest plain_request(http::request<http::string_body>&& message) {
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const std::size_t mark = target.find('?');
  request.path = std::string(target.substr(0, mark));
  if (mark != std::string_view::npos) request.query = std::string(target.substr(mark + 1));
  for (const auto& field : message) {
    request.headers.emplace_back(lower(field.name_string()), std::string(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

class BeastConnection final : public Connection,
                              private Exchange,
                              public std::enable_shared_from_this<BeastConnection> {
 public:
  BeastConnection(asio::ip::tcp::socket socket, RequestSink& sink, ConnectionWatcher& watcher,
                  const ConnectionLimits& limits)
      : stream_(std::move(socket)), sink_(sink), watcher_(watcher), limits_(limits) {}

  asio::awaitable<void> serve();
  void close_when_idle() override;
  void abort() override {
    client_is_gone();
    close();
  }

 private:
  const HttpRequest& request() const override { return request_; }
  asio::awaitable<void> respond(HttpResponse response) override;
  asio::awaitable<bool> begin_stream(Headers headers) override;
  asio::awaitable<bool> write(std::string_view data) override;
  asio::awaitable<bool> end_stream() override;
  bool client_gone() const override { return client_gone_; }
  void on_client_gone(std::function<void()> callback) override {
    client_gone_callback_ = std::move(callback);
  }

  /// Returns false when the connection is to end.
  asio::awaitable<bool> read_request();
  asio::awaitable<void> discard_rest();
  asio::awaitable<void> answer();
  asio::awaitable<void> watch_client(std::uint64_t request_number);
  asio::awaitable<bool> write_all(std::string bytes);
  std::optional<unsigned> status_for(const beast::error_code& error) const;
  void client_is_gone();
  void close();

  beast::tcp_stream stream_;
  RequestSink& sink_;
  ConnectionWatcher& watcher_;
  const ConnectionLimits limits_;
  beast::flat_buffer buffer_;

  HttpRequest request_;
  std::uint64_t request_number_ = 0;
  bool keep_alive_ = false;
  bool is_http_1_0_ = false;
  bool is_head_ = false;
  bool chunked_ = false;
  bool answering_ = false;
  bool closing_ = false;
  bool client_gone_ = false;
  std::function<void()> client_gone_callback_;
};

asio::awaitable<void> BeastConnection::serve() {
  const auto self = shared_from_this();
  while (!closing_ && !client_gone_) {
    watcher_.on_waiting(*this);
    const bool readable = co_await read_request();
    if (!readable) break;
    watcher_.on_answering(*this);
    co_await answer();
    if (!keep_alive_) break;
    // A body may have left 64 KiB of room; a thousand idle connections shall not keep that.
    if (buffer_.size() == 0) buffer_.shrink_to_fit();
  }
  close();
  watcher_.on_end(*this);
}

asio::awaitable<bool> BeastConnection::read_request() {
  // The first byte may take as long as a kept-alive connection may idle; the rest must follow.
  stream_.expires_after(limits_.idle_max);
  if (buffer_.size() == 0) {
    const auto [error, bytes] =
        co_await stream_.async_read_some(buffer_.prepare(kFirstReadBytes), kNoThrow);
    if (error) co_return false;
    buffer_.commit(bytes);
  }
  stream_.expires_after(limits_.request_max);
  http::request_parser<http::string_body> parser;
  parser.header_limit(static_cast<std::uint32_t>(limits_.header_bytes_max));
  parser.body_limit(limits_.body_bytes_max);
  const auto [header_error, header_bytes] =
      co_await http::async_read_header(stream_, buffer_, parser, kNoThrow);
  beast::error_code error = header_error;
  if (!error && lower(parser.get()[http::field::expect]) == "100-continue") {
    const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(stream_, asio::buffer(go_on), kNoThrow);
  }
  if (!error) {
    const auto [body_error, body_bytes] =
        co_await http::async_read(stream_, buffer_, parser, kNoThrow);
    error = body_error;
  }
  is_head_ = parser.get().method() == http::verb::head;
  is_http_1_0_ = parser.get().version() < 11;
  if (error) {
    keep_alive_ = false;
    if (const std::optional<unsigned> status = status_for(error)) {
      stream_.expires_after(limits_.write_max);
      co_await respond(sink_.protocol_error(*status, error.message()));
      co_await discard_rest();
    }
    co_return false;
  }
  keep_alive_ = parser.get().keep_alive();
  request_ = plain_request(parser.release());
  co_return true;
}

/// A client that is still sending would get a reset, and lose the answer, if the socket were closed
/// under it. Bounded in bytes and time.
asio::awaitable<void> BeastConnection::discard_rest() {
  beast::error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kDiscardMax);
  buffer_.clear();
  for (std::size_t discarded = 0; discarded < kDiscardBytesMax;) {
    const auto [error, bytes] =
        co_await stream_.async_read_some(buffer_.prepare(kDiscardChunkBytes), kNoThrow);
    if (error) co_return;
    discarded += bytes;
  }
}

/// What to tell the client about a request that cannot be read; empty where it is gone.
std::optional<unsigned> BeastConnection::status_for(const beast::error_code& error) const {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::header_limit) return 431;
  if (error == beast::error::timeout) return std::nullopt;  // The stream is closed by then.
  if (error == http::error::end_of_stream || error == http::error::partial_message) {
    return std::nullopt;
  }
  if (error.category() == http::make_error_code(http::error::bad_method).category()) return 400;
  return std::nullopt;
}

asio::awaitable<void> BeastConnection::answer() {
  answering_ = true;
  chunked_ = false;
  ++request_number_;
  stream_.expires_never();
  asio::co_spawn(stream_.get_executor(), watch_client(request_number_), asio::detached);
  co_await sink_.serve(*this);
  answering_ = false;
  client_gone_callback_ = nullptr;
  request_ = {};
  if (closing_) keep_alive_ = false;
  // Ends watch_client(); nothing else is under way on this socket now.
  beast::error_code ignored;
  stream_.socket().cancel(ignored);
}

/// Waits for the end of the client's side while its request is being answered. A client that
/// sends its next request early is not watched any further.
asio::awaitable<void> BeastConnection::watch_client(std::uint64_t request_number) {
  const auto self = shared_from_this();
  const auto [error] =
      co_await stream_.socket().async_wait(asio::ip::tcp::socket::wait_read, kNoThrow);
  if (error || request_number != request_number_ || !answering_) co_return;
  char byte = 0;
  const ssize_t got = ::recv(stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) client_is_gone();
}

void BeastConnection::client_is_gone() {
  client_gone_ = true;
  keep_alive_ = false;
  if (client_gone_callback_) std::exchange(client_gone_callback_, nullptr)();
}

asio::awaitable<bool> BeastConnection::write_all(std::string bytes) {
  if (client_gone_) co_return false;
  stream_.expires_after(limits_.write_max);
  const auto [error, written] = co_await asio::async_write(stream_, asio::buffer(bytes), kNoThrow);
  if (error) {
    client_gone_ = true;
    keep_alive_ = false;
    co_return false;
  }
  stream_.expires_never();
  co_return true;
}

asio::awaitable<void> BeastConnection::respond(HttpResponse response) {
  http::response<http::empty_body> head(static_cast<http::status>(response.status), 11);
  if (response.status == 529) head.reason("Overloaded");  // Not an IANA status.
  for (const auto& [name, value] : response.headers) head.set(name, value);
  if (!response.content_type.empty()) head.set(http::field::content_type, response.content_type);
  if (response.status != 204) head.content_length(response.body.size());
  if (closing_) keep_alive_ = false;
  head.keep_alive(keep_alive_);
  // The default of the version that we answer with, but not of the client's.
  if (keep_alive_ && is_http_1_0_) head.set(http::field::connection, "keep-alive");
  std::string bytes = fmt::format("{}", fmt::streamed(head.base()));
  if (!is_head_) bytes += response.body;
  co_await write_all(std::move(bytes));
}

asio::awaitable<bool> BeastConnection::begin_stream(Headers headers) {
  http::response<http::empty_body> head(http::status::ok, 11);
  for (const auto& [name, value] : headers) head.set(name, value);
  // HTTP/1.0 has no chunks; the end of the connection ends the answer there.
  chunked_ = !is_http_1_0_;
  if (chunked_) {
    head.chunked(true);
  } else {
    keep_alive_ = false;
  }
  head.keep_alive(keep_alive_);
  co_return co_await write_all(fmt::format("{}", fmt::streamed(head.base())));
}

asio::awaitable<bool> BeastConnection::write(std::string_view data) {
  if (data.empty()) co_return !client_gone_;
  std::string bytes =
      chunked_ ? fmt::format("{:x}\r\n{}\r\n", data.size(), data) : std::string(data);
  co_return co_await write_all(std::move(bytes));
}

asio::awaitable<bool> BeastConnection::end_stream() {
  if (!chunked_) co_return !client_gone_;
  co_return co_await write_all("0\r\n\r\n");
}

void BeastConnection::close_when_idle() {
  closing_ = true;
  if (!answering_) close();
}

void BeastConnection::close() {
  beast::error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  stream_.close();
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::shared_ptr<Connection> start_connection(asio::ip::tcp::socket socket, RequestSink& sink,
                                             ConnectionWatcher& watcher,
                                             const ConnectionLimits& limits) {
  const asio::any_io_executor executor = socket.get_executor();
  beast::error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  auto connection = std::make_shared<BeastConnection>(std::move(socket), sink, watcher, limits);
  watcher.on_waiting(*connection);  // Before its coroutine runs, so that a burst is counted.
  asio::co_spawn(executor, connection->serve(), asio::detached);
  return connection;
}

}  // namespace pensieve::gateway
