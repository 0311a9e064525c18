#include "gateway/testing/http_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <regex>
#include <utility>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"

namespace pensieve::gateway {
namespace {

constexpr Duration kPatience = std::chrono::seconds(30);
constexpr int kSilentTurns = 20;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

std::string Answer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

HttpProbe::HttpProbe(std::uint16_t port, std::function<void()> wait) : wait_(std::move(wait)) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  PENSIEVE_CHECK(fd >= 0);
  const sockaddr_in address = loopback(port);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    ::close(fd);
    return;
  }
  socket_ = fd;
}

HttpProbe::HttpProbe(HttpProbe&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)),
      wait_(std::move(other.wait_)),
      received_(std::move(other.received_)),
      ended_(other.ended_),
      framing_(other.framing_),
      body_left_(other.body_left_),
      events_(std::move(other.events_)) {}

HttpProbe::~HttpProbe() {
  hang_up();
}

void HttpProbe::hang_up() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

void HttpProbe::shut_down_sending() {
  ::shutdown(socket_, SHUT_WR);
}

void HttpProbe::send(std::string_view bytes) {
  const TimePoint give_up = steady_clock().now() + kPatience;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
      continue;
    }
    if (!would_block()) return;
    if (steady_clock().now() > give_up) {
      ADD_FAILURE() << "the server does not read";
      return;
    }
    wait_();
  }
}

bool HttpProbe::receive() {
  char buffer[4096];
  const TimePoint give_up = steady_clock().now() + kPatience;
  while (!ended_) {
    const ssize_t got = ::recv(socket_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) {
      received_.append(buffer, static_cast<std::size_t>(got));
      return true;
    }
    if (got == 0 || !would_block()) {
      ended_ = true;
    } else if (steady_clock().now() > give_up) {
      ADD_FAILURE() << "nothing came; so far: " << received_;
      return false;
    } else {
      wait_();
    }
  }
  return false;
}

bool HttpProbe::fill_until(std::string_view mark) {
  while (received_.find(mark) == std::string::npos) {
    if (!receive()) return false;
  }
  return true;
}

bool HttpProbe::fill(std::size_t bytes) {
  while (received_.size() < bytes) {
    if (!receive()) return false;
  }
  return true;
}

std::string HttpProbe::take(std::size_t bytes) {
  std::string taken = received_.substr(0, bytes);
  received_.erase(0, bytes);
  return taken;
}

Answer HttpProbe::head() {
  Answer answer;
  framing_ = Framing::kNone;
  if (!fill_until("\r\n\r\n")) return answer;
  std::string text = take(received_.find("\r\n\r\n") + 4);
  if (!text.starts_with("HTTP/1.1 ")) {
    ADD_FAILURE() << "no HTTP: " << text;
    return answer;
  }
  answer.status = static_cast<unsigned>(std::stoul(text.substr(9, 3)));
  for (std::size_t at = text.find("\r\n") + 2; at + 2 < text.size();) {
    const std::size_t end = text.find("\r\n", at);
    const std::size_t colon = text.find(": ", at);
    answer.headers[lower(text.substr(at, colon - at))] = text.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  if (answer.header("transfer-encoding") == "chunked") {
    framing_ = Framing::kChunks;
  } else if (!answer.header("content-length").empty()) {
    framing_ = Framing::kLength;
    body_left_ = std::stoul(answer.header("content-length"));
  } else if (answer.status >= 200 && answer.status != 204) {
    framing_ = Framing::kToTheEnd;
  }
  return answer;
}

/// The next part of the body, decoded; empty at its end.
std::optional<std::string> HttpProbe::body_piece() {
  switch (framing_) {
    case Framing::kNone:
      return std::nullopt;
    case Framing::kLength:
      framing_ = Framing::kNone;
      if (!fill(body_left_)) ADD_FAILURE() << "the body is cut off: " << received_;
      return take(body_left_);
    case Framing::kToTheEnd:
      if (received_.empty() && !receive()) {
        framing_ = Framing::kNone;
        return std::nullopt;
      }
      return take(received_.size());
    case Framing::kChunks:
      break;
  }
  if (!fill_until("\r\n")) {
    framing_ = Framing::kNone;
    ADD_FAILURE() << "the stream is cut off: " << received_;
    return std::nullopt;
  }
  const std::string line = take(received_.find("\r\n") + 2);
  const std::size_t size = std::stoul(line, nullptr, 16);
  if (!fill(size + 2)) ADD_FAILURE() << "a chunk is cut off";
  std::string piece = take(size);
  EXPECT_EQ(take(2), "\r\n");
  if (size > 0) return piece;
  framing_ = Framing::kNone;
  return std::nullopt;
}

Answer HttpProbe::answer() {
  Answer answer = head();
  while (const std::optional<std::string> piece = body_piece()) answer.body += *piece;
  return answer;
}

std::optional<Event> HttpProbe::event() {
  while (events_.find("\n\n") == std::string::npos) {
    const std::optional<std::string> piece = body_piece();
    if (!piece) {
      EXPECT_EQ(events_, "") << "half an event";
      return std::nullopt;
    }
    events_ += *piece;
  }
  const std::size_t end = events_.find("\n\n");
  const std::string text = events_.substr(0, end);
  events_.erase(0, end + 2);
  const std::size_t line = text.find("\ndata: ");
  if (!text.starts_with("event: ") || line == std::string::npos) {
    ADD_FAILURE() << "no event: " << text;
    return std::nullopt;
  }
  return Event{text.substr(7, line - 7), text.substr(line + 7)};
}

std::string HttpProbe::event_names() {
  std::string names;
  while (const std::optional<Event> next = event()) {
    if (!names.empty()) names += ' ';
    names += next->name;
  }
  return names;
}

bool HttpProbe::is_silent() {
  char byte = 0;
  for (int turn = 0; turn < kSilentTurns; ++turn) {
    const bool nothing = ::recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && would_block();
    if (!received_.empty() || !events_.empty() || !nothing) return false;
    wait_();
  }
  return true;
}

bool HttpProbe::closed_by_server() {
  if (!received_.empty()) return false;
  receive();
  return ended_ && received_.empty();
}

std::string get(std::string_view path, std::string_view headers) {
  return fmt::format("GET {} HTTP/1.1\r\nhost: 127.0.0.1\r\n{}\r\n", path, headers);
}

std::string post(std::string_view path, std::string_view body, std::string_view headers) {
  return fmt::format("POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n{}\r\n{}", path,
                     body.size(), headers, body);
}

std::string ask(std::string_view script, std::string_view members) {
  return post("/v1/messages",
              fmt::format(R"({{"model":"scripted","max_tokens":100000,"messages":[{{"role":"user",)"
                          R"("content":"script: {}"}}]{}{}}})",
                          script, members.empty() ? "" : ",", members));
}

std::string ask_stream(std::string_view script, std::string_view members) {
  return ask(script, fmt::format(R"("stream":true{}{})", members.empty() ? "" : ",", members));
}

std::uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  PENSIEVE_CHECK(::bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0);
  PENSIEVE_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

std::string without_ids(const std::string& text) {
  return std::regex_replace(text, std::regex("(msg|req)_[0-9A-Za-z]{24}"), "$1_*");
}

}  // namespace pensieve::gateway
