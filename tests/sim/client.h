// A client of the simulated gateway: sends one request, reads (or does not), and judges what it
// got.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "base/clock.h"
#include "base/timer.h"
#include "gateway/exchange.h"
#include "sim/speech.h"

namespace pensieve::sim {

enum class Ask : std::uint8_t { kMessage, kStream, kCount, kClear, kHealth, kMetrics, kBad };

/// What is wanted, and how the client behaves.
struct Manner {
  Ask ask = Ask::kMessage;
  std::string words;  // The prompt.
  std::uint32_t output_tokens_max = 1;
  std::optional<TimePoint> hangs_up_at;
  /// Writes block from here on, until `reads_again_at` or the gateway's patience is over.
  std::optional<TimePoint> stops_reading_at;
  TimePoint reads_again_at{};
};

/// How a request ended, as its client sees it.
enum class Ending : std::uint8_t {
  kOpen,         // Not yet.
  kWhole,        // 200 and all that was asked for.
  kCutShort,     // 200 and a proper end, but a shorter answer: the window was full.
  kErrorStatus,  // An error of the API before anything was sent.
  kErrorEvent,   // An error event as the last of a stream, or a whole answer that was cut off.
  kHungUp,       // The client was gone first.
};

/// The answering side of one request, and its client.
///
/// Thread-safety: one thread. Must outlive the serve() of its request.
class SimClient final : public gateway::Exchange {
 public:
  SimClient(std::uint64_t id, const boost::asio::any_io_executor& executor, const Clock& clock,
            Manner manner);

  /// What the connection does before it serves: false where there is no room for the request, and
  /// the refusal is the answer.
  bool charge_to(gateway::RequestSink& sink);

  // Exchange.
  const gateway::HttpRequest& request() const override { return request_; }
  std::string& request_body() override { return request_.body; }
  void release_body() override { request_.body = std::string(); }
  gateway::BufferCharge& charge() override { return charge_; }
  boost::asio::awaitable<void> respond(gateway::HttpResponse response) override;
  boost::asio::awaitable<bool> begin_stream(gateway::Headers headers) override;
  boost::asio::awaitable<bool> write(std::string_view data) override;
  boost::asio::awaitable<bool> end_stream() override;
  void cut_stream() override { cut_ = true; }
  bool shows_cuts() const override { return true; }
  bool client_gone() const override { return gone_; }
  void on_client_gone(std::function<void()> callback) override;

  /// What the client does by the time that has come.
  void tick();

  std::uint64_t id() const { return id_; }
  const Manner& manner() const { return manner_; }
  bool wants_model() const {
    return manner_.ask == Ask::kMessage || manner_.ask == Ask::kStream ||
           manner_.ask == Ask::kCount;
  }
  unsigned status() const { return status_; }
  const std::string& body() const { return body_; }
  std::string header(std::string_view name) const;
  TimePoint sent_at() const { return sent_at_; }

  /// Judges the answer once serve() is over. Sets `ending()`; returns what is wrong, or nothing.
  std::string judge();
  Ending ending() const { return ending_; }

  bool is_served = false;  // serve() has returned.

 private:
  boost::asio::awaitable<bool> pass();
  bool is_proper_error() const;
  std::string judge_body();
  std::string judge_late_body();
  std::string judge_message(const std::string& body);
  std::string judge_stream();
  std::string judge_events(const std::string& last_event);

  const std::uint64_t id_;
  const Clock& clock_;
  const Manner manner_;
  const TimePoint sent_at_;
  gateway::HttpRequest request_;
  gateway::BufferCharge charge_;
  Answer expected_;

  Timer reading_;
  bool gone_ = false;
  std::function<void()> callback_;

  int responses_ = 0;
  int streams_begun_ = 0;
  int streams_ended_ = 0;
  bool cut_ = false;
  bool wrote_after_end_ = false;
  unsigned status_ = 0;
  gateway::Headers headers_;
  std::string body_;
  Ending ending_ = Ending::kOpen;
};

}  // namespace pensieve::sim
