#include "gateway/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
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

#include "base/timer.h"

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
/// Most that one http::async_read_some() takes from a socket (beast/core/detail/read.hpp).
constexpr std::size_t kReadBytesMax = 64U << 10;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

/// Takes "http://host:port" off a target in absolute form, as clients send it to a proxy, and
/// returns "host:port", which stands in place of the `Host` header (RFC 9112, section 3.2.2).
std::string_view take_authority(std::string_view& target) {
  constexpr std::string_view kScheme = "http://";
  if (lower(target.substr(0, kScheme.size())) != kScheme) return {};
  const std::size_t end = std::min(target.find_first_of("/?", kScheme.size()), target.size());
  const std::string_view authority = target.substr(kScheme.size(), end - kScheme.size());
  target.remove_prefix(end);
  if (target.empty()) target = "/";
  return authority;
}

/// All but the body.
HttpRequest head_of(const http::request<http::string_body>& message) {
  HttpRequest request;
  request.method = std::string(message.method_string());
  std::string_view target(message.target().data(), message.target().size());
  const std::string_view authority = take_authority(target);
  const std::size_t mark = target.find('?');
  request.path = std::string(target.substr(0, mark));
  if (mark != std::string_view::npos) request.query = std::string(target.substr(mark + 1));
  for (const auto& field : message) {
    std::string content(field.value());
    if (!authority.empty() && field.name() == http::field::host) content = authority;
    request.headers.emplace_back(lower(field.name_string()), std::move(content));
  }
  return request;
}

using Parser = http::request_parser<http::string_body>;

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
  void cut_stream() override { keep_alive_ = false; }
  bool shows_cuts() const override { return !is_http_1_0_; }
  std::string& request_body() override { return request_.body; }
  void release_body() override { request_.body = std::string(); }
  BufferCharge& charge() override { return charge_; }
  bool client_gone() const override { return client_gone_; }
  void on_client_gone(std::function<void()> callback) override {
    client_gone_callback_ = std::move(callback);
  }

  /// Returns false when the connection is to end.
  asio::awaitable<bool> read_request();
  /// The body in steps, each charged before it is read. An answer where the rest is not read.
  asio::awaitable<std::optional<HttpResponse>> read_body(Parser& parser, beast::error_code& error);
  /// Ends the read of a body that is still under way at `deadline`, and keeps the connection, which
  /// expires_after() would close.
  void end_body_at(Timer& deadline);
  /// Room for `body_bytes`, or the answer that says why not.
  std::optional<HttpResponse> make_room(const HttpRequest& head, std::uint64_t body_bytes);
  asio::awaitable<void> refuse(HttpResponse response);
  asio::awaitable<void> discard_rest();
  asio::awaitable<void> answer();
  asio::awaitable<void> watch_client(std::uint64_t request_number);
  asio::awaitable<bool> write_all(std::string bytes, std::string_view more = {});
  std::optional<unsigned> status_for(const beast::error_code& error) const;
  void client_is_gone();
  void close();

  beast::tcp_stream stream_;
  RequestSink& sink_;
  ConnectionWatcher& watcher_;
  const ConnectionLimits limits_;
  beast::flat_buffer buffer_;

  HttpRequest request_;
  BufferCharge charge_;
  std::uint64_t request_number_ = 0;
  bool keep_alive_ = false;
  bool is_http_1_0_ = false;
  bool is_head_ = false;
  bool chunked_ = false;
  bool reading_body_ = false;
  bool body_is_late_ = false;
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
  Timer deadline(stream_.get_executor());
  deadline.expires_after(limits_.request_max);
  auto charge = sink_.buffers().try_charge(request_bytes(0));
  if (!charge) {
    co_await refuse(sink_.refuse_for_shortage({}, charge.error()));
    co_return false;
  }
  charge_ = std::move(*charge);
  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(limits_.header_bytes_max));
  parser.body_limit(limits_.body_bytes_max);
  const auto [header_error, header_bytes] =
      co_await http::async_read_header(stream_, buffer_, parser, kNoThrow);
  beast::error_code error = header_error;
  is_head_ = parser.get().method() == http::verb::head;
  is_http_1_0_ = parser.get().version() < 11;
  // A length that is too much is an error of the head, which is there all the same.
  if (!error || error == http::error::body_limit) request_ = head_of(parser.get());
  if (!error) {
    end_body_at(deadline);
    std::optional<HttpResponse> refusal = co_await read_body(parser, error);
    reading_body_ = false;
    if (refusal) {
      co_await refuse(std::move(*refusal));
      co_return false;
    }
  }
  if (error) {
    if (const std::optional<unsigned> status = status_for(error)) {
      co_await refuse(sink_.protocol_error(request_, *status, error.message()));
    }
    co_return false;
  }
  keep_alive_ = parser.get().keep_alive();
  request_.body = std::move(parser.get().body());
  charge_.shrink(request_bytes(request_.body.size()));
  co_return true;
}

void BeastConnection::end_body_at(Timer& deadline) {
  stream_.expires_never();
  reading_body_ = true;
  body_is_late_ = false;
  deadline.async_wait([self = shared_from_this()](const beast::error_code& error) {
    if (error || !self->reading_body_) return;
    self->body_is_late_ = true;
    self->stream_.cancel();
  });
}

asio::awaitable<std::optional<HttpResponse>> BeastConnection::read_body(Parser& parser,
                                                                        beast::error_code& error) {
  std::uint64_t room = kSmallBodyBytes;  // That request_ is charged for.
  const auto length = parser.content_length();
  if (length && *length > 0) room = *length;
  const bool has_body = parser.chunked() || (length && *length > 0);
  if (has_body) {
    if (auto refusal = make_room(request_, room)) co_return refusal;
  }
  if (lower(parser.get()[http::field::expect]) == "100-continue") {
    const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(stream_, asio::buffer(go_on), kNoThrow);
  }
  parser.eager(true);
  while (!parser.is_done()) {
    // A body without a length doubles its room as it comes; one read brings kReadBytesMax at most.
    const std::uint64_t wanted = parser.get().body().size() + kReadBytesMax;
    if (!length && wanted > room) {
      room = std::min<std::uint64_t>(2 * wanted, limits_.body_bytes_max);
      if (auto refusal = make_room(request_, room)) co_return refusal;
    }
    const auto [read_error, bytes] =
        co_await http::async_read_some(stream_, buffer_, parser, kNoThrow);
    error = read_error;
    if (error) co_return std::nullopt;
  }
  co_return std::nullopt;
}

std::optional<HttpResponse> BeastConnection::make_room(const HttpRequest& head,
                                                       std::uint64_t body_bytes) {
  const bool is_small_so_far = charge_.held() <= request_bytes(kSmallBodyBytes);
  if (body_bytes > kSmallBodyBytes && is_small_so_far) {
    if (auto refusal = sink_.refuse_unread(head)) return refusal;
  }
  const auto grown = charge_.try_grow(request_bytes(body_bytes));
  if (!grown) return sink_.refuse_for_shortage(head, grown.error());
  return std::nullopt;
}

/// The connection ends with this answer: what else the client has sent is not known.
asio::awaitable<void> BeastConnection::refuse(HttpResponse response) {
  keep_alive_ = false;
  stream_.expires_after(limits_.write_max);
  co_await respond(std::move(response));
  charge_.give_back();
  request_ = {};
  co_await discard_rest();
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
  if (body_is_late_) return 408;
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
  charge_.give_back();
  buffer_.shrink_to_fit();  // A connection that idles keeps only what has come of the next request.
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

asio::awaitable<bool> BeastConnection::write_all(std::string bytes, std::string_view more) {
  if (client_gone_) co_return false;
  stream_.expires_after(limits_.write_max);
  const std::array<asio::const_buffer, 2> buffers{asio::buffer(bytes), asio::buffer(more)};
  const auto [error, written] = co_await asio::async_write(stream_, buffers, kNoThrow);
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
  const std::string_view body = is_head_ ? std::string_view() : std::string_view(response.body);
  co_await write_all(fmt::format("{}", fmt::streamed(head.base())), body);
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
  if (data.empty() || is_head_) co_return !client_gone_;
  std::string bytes =
      chunked_ ? fmt::format("{:x}\r\n{}\r\n", data.size(), data) : std::string(data);
  co_return co_await write_all(std::move(bytes));
}

asio::awaitable<bool> BeastConnection::end_stream() {
  if (!chunked_ || is_head_) co_return !client_gone_;
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
