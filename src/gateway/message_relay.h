// One POST /v1/messages: from an accepted request to the last event, over at most two workers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "api/answer_format.h"
#include "api/messages.h"
#include "api/response.h"
#include "base/clock.h"
#include "gateway/answer_blocks.h"
#include "gateway/exchange.h"
#include "gateway/running_request.h"
#include "gateway/traffic.h"
#include "model/pool.h"
#include "worker/link.h"
#include "worker/messages.h"

namespace pensieve::gateway {

/// Relays what a worker says to a client, streaming or not.
///
/// Exactly one end: a whole message, an error status, or, once something was sent, an `error` event
/// or an answer that is cut off. A worker that dies before any content was sent is replaced once,
/// unseen by the client. A client that waits long gets something before there is an answer
/// (docs/design/long-silences.md).
///
/// Ownership: borrows all; lives inside one coroutine. Thread-safety: the io thread only.
class MessageRelay final : public RunningRequest {
 public:
  /// Bytes of an answer that is not streamed; a longer one ends with an error.
  static constexpr std::size_t kAnswerBytesMax = 16U << 20;

  MessageRelay(Exchange& exchange, model::Pool& pool, const Clock& clock, Traffic& traffic,
               api::MessagesRequest request, std::string request_id, Headers headers,
               api::AnswerFormat& format);
  /// Counts the request's end.
  ~MessageRelay() override;
  MessageRelay(const MessageRelay&) = delete;
  MessageRelay& operator=(const MessageRelay&) = delete;

  void end_early(const api::ApiError& error) override;
  bool ends_early() const override { return early_end_.has_value(); }

  /// Tokens that were computed for it so far: what the cache did not hold, and the answer's, of
  /// which at least one is in each frame where the worker has not said how many they are.
  std::uint64_t tokens() const { return computed_tokens_ + output_tokens_.value_or(frames_); }

  /// What the caller still has to answer with, where nothing was sent; empty where all is done.
  boost::asio::awaitable<std::optional<api::ApiError>> run();

 private:
  enum class Outcome : std::uint8_t { kEnded, kWorkerGone };

  /// A worker, or why there is none; empty where the client is gone. Keeps the client awake.
  boost::asio::awaitable<std::optional<model::Pool::Acquired>> wait_for_worker();
  boost::asio::awaitable<Outcome> relay(worker::Call& call);
  /// The frame's share of what the request holds, for the time until it is written.
  /// Room for so much text in the call and in the answer.
  bool cover(std::size_t call_bytes, std::size_t answer_bytes);
  Bytes needed() const;
  boost::asio::awaitable<bool> take(worker::Frame frame);
  void begin_whole();
  boost::asio::awaitable<bool> begin_stream();
  boost::asio::awaitable<bool> begin_body(std::string_view content_type);
  std::optional<std::string> content(const worker::Frame& frame);
  boost::asio::awaitable<bool> pass_on(const worker::Frame& frame);
  boost::asio::awaitable<void> done(const worker::Done& done);
  boost::asio::awaitable<bool> heartbeat();
  boost::asio::awaitable<void> end_with_error(api::ApiError error);
  api::Usage usage(std::uint32_t output_tokens, std::uint32_t thinking_tokens) const;
  void log_end(const worker::Done& done) const;

  Exchange& exchange_;
  model::Pool& pool_;
  const Clock& clock_;
  Traffic& traffic_;
  api::MessagesRequest request_;  // Without its prompt, once that is encoded.
  const std::string request_id_;
  api::AnswerFormat& format_;
  const Headers headers_;
  const TimePoint began_at_;

  std::uint64_t prompt_bytes_ = 0;
  std::string payload_;           // For the worker; kept while another may have to be asked.
  std::size_t call_covered_ = 0;  // Bytes of text that the request is charged for.
  std::size_t answer_covered_ = 0;
  AnswerBlocks blocks_;
  bool begun_ = false;  // The status is sent.
  std::uint32_t input_tokens_ = 0;
  std::uint32_t cached_tokens_ = 0;
  std::uint64_t computed_tokens_ = 0;           // Of the prompt.
  std::uint64_t frames_ = 0;                    // Since the prompt was computed.
  std::optional<std::uint64_t> output_tokens_;  // Once the worker has said it.
  TimePoint next_ping_;
  std::optional<TimePoint> begin_by_;  // message_start goes out by then, whatever is known.
  std::optional<worker::WorkerGone> gone_;
  worker::Call* call_ = nullptr;  // While relay() runs.
  std::optional<api::ApiError> early_end_;
  std::optional<api::ApiError> unsent_error_;
  MessageEnd end_ = MessageEnd::kClientGone;  // Until another is known.
};

}  // namespace pensieve::gateway
