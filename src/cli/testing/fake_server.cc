#include "cli/testing/fake_server.h"

#include <thread>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace pensieve::cli {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

struct FakeServer::State {
  asio::io_context io;
  tcp::acceptor acceptor{io, {asio::ip::make_address("127.0.0.1"), 0}};
  std::uint16_t port = acceptor.local_endpoint().port();
  std::vector<std::string> requests;
  std::thread thread;

  void wait_for_close(tcp::socket& socket) {
    boost::system::error_code error;
    char byte = 0;
    while (!error) socket.read_some(asio::buffer(&byte, 1), error);
    requests.emplace_back("closed by the client");
  }

  void serve(const std::vector<Answer>& answers) {
    for (const Answer& answer : answers) {
      boost::system::error_code error;
      tcp::socket socket(io);
      acceptor.accept(socket, error);
      if (error) break;
      boost::beast::flat_buffer buffer;
      http::request<http::string_body> request;
      http::read(socket, buffer, request, error);
      requests.push_back(fmt::format(
          "{} {}\nx-api-key: {}\n{}", std::string(request.method_string()),
          std::string(request.target()), std::string(request["x-api-key"]), request.body()));
      for (const std::string& piece : answer) {
        if (piece == kHold) {
          wait_for_close(socket);
        } else if (!error) {
          asio::write(socket, asio::buffer(piece), error);
        }
      }
      socket.shutdown(tcp::socket::shutdown_both, error);
    }
    boost::system::error_code ignored;
    acceptor.close(ignored);
  }
};

FakeServer::FakeServer(std::vector<Answer> answers) : state_(std::make_unique<State>()) {
  state_->thread =
      std::thread([state = state_.get(), said = std::move(answers)] { state->serve(said); });
}

FakeServer::~FakeServer() {
  // A thread that still waits for a connection gets one; one that has ended refuses it.
  while (state_->thread.joinable()) {
    asio::io_context io;
    tcp::socket socket(io);
    boost::system::error_code refused;
    socket.connect({asio::ip::make_address("127.0.0.1"), state_->port}, refused);
    if (refused) state_->thread.join();
  }
}

Endpoint FakeServer::endpoint() const {
  return {"127.0.0.1", state_->port, "the-key"};
}

std::vector<std::string> FakeServer::requests() {
  state_->thread.join();
  return state_->requests;
}

FakeServer::Answer json_answer(unsigned status, const std::string& body) {
  return {
      fmt::format("HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                  status, body.size()),
      body};
}

FakeServer::Answer sse_answer(const std::vector<std::string>& pieces) {
  FakeServer::Answer answer{
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"};
  for (const std::string& piece : pieces) {
    answer.push_back(fmt::format("{:x}\r\n", piece.size()));
    answer.push_back(piece + "\r\n");
  }
  answer.push_back("0\r\n\r\n");
  return answer;
}

}  // namespace pensieve::cli
