// An exchange without a client: whoever runs a request for itself finds the whole answer in it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "gateway/exchange.h"

namespace pensieve::gateway {

/// REQUIRES: the request is not streamed. Thread-safety: the io thread only.
class CollectedAnswer final : public Exchange {
 public:
  explicit CollectedAnswer(BufferCharge charge) : charge_(std::move(charge)) {}

  /// Of the answer; empty where there was none.
  const std::string& body() const { return response_.body; }

  const HttpRequest& request() const override { return request_; }
  std::string& request_body() override { return request_.body; }
  void release_body() override {}
  BufferCharge& charge() override { return charge_; }
  boost::asio::awaitable<void> respond(HttpResponse response) override {
    response_ = std::move(response);
    co_return;
  }
  boost::asio::awaitable<bool> begin_stream(Headers) override {
    PENSIEVE_CHECK(false);
    co_return false;
  }
  boost::asio::awaitable<bool> write(std::string_view) override { co_return false; }
  boost::asio::awaitable<bool> end_stream() override { co_return false; }
  void cut_stream() override {}
  bool shows_cuts() const override { return false; }
  bool client_gone() const override { return false; }
  void on_client_gone(std::function<void()>) override {}

 private:
  HttpRequest request_;
  HttpResponse response_;
  BufferCharge charge_;
};

}  // namespace pensieve::gateway
