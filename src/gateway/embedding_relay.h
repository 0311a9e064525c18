// One POST /v1/embeddings: from an accepted request to the last vector, over at most two workers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "api/embeddings.h"
#include "base/clock.h"
#include "gateway/exchange.h"
#include "gateway/running_request.h"
#include "gateway/traffic.h"
#include "model/pool.h"
#include "worker/link.h"

namespace pensieve::gateway {

/// Asks a worker for one vector after the other. Between two of them the worker does for others
/// what waits, looks at its memory, and may refuse: then the whole request is refused. A worker
/// that dies is replaced once, and the list goes on where it was.
///
/// Ownership: borrows all; lives inside one coroutine. Thread-safety: the io thread only.
class EmbeddingRelay final : public RunningRequest {
 public:
  /// Bytes of an answer; a longer one is a 400.
  static constexpr std::size_t kEmbeddingsBytesMax = 64U << 20;

  EmbeddingRelay(Exchange& exchange, model::Pool& pool, const Clock& clock, Traffic& traffic,
                 api::EmbeddingsRequest request, std::string request_id);
  EmbeddingRelay(const EmbeddingRelay&) = delete;
  EmbeddingRelay& operator=(const EmbeddingRelay&) = delete;

  void end_early(const api::ApiError& error) override;
  bool ends_early() const override { return early_end_.has_value(); }

  /// Tokens that were computed for it so far.
  std::uint64_t tokens() const { return tokens_; }

  /// The answer's body or the error to answer with; empty where the client is gone.
  boost::asio::awaitable<std::optional<std::expected<std::string, api::ApiError>>> run();

 private:
  /// A step forward or, without an error, another worker for the same one.
  boost::asio::awaitable<std::optional<api::ApiError>> embed_next();
  boost::asio::awaitable<std::optional<api::ApiError>> take_answer(worker::Call& call);
  boost::asio::awaitable<std::optional<model::Pool::Acquired>> wait_for_worker();
  std::optional<api::ApiError> check_input() const;
  std::optional<api::ApiError> add(const worker::Frame& frame);
  Bytes needed() const;

  Exchange& exchange_;
  model::Pool& pool_;
  const Clock& clock_;
  Traffic& traffic_;
  const api::EmbeddingsRequest request_;
  const std::string request_id_;

  std::size_t input_bytes_ = 0;     // Of all inputs.
  std::size_t next_ = 0;            // The input that is or will be asked for.
  std::size_t answer_covered_ = 0;  // Bytes of the answer that the request is charged for.
  api::EmbeddingsAnswer answer_;
  std::uint64_t tokens_ = 0;
  bool retried_ = false;
  bool client_gone_ = false;
  worker::Call* call_ = nullptr;  // While its answer is waited for.
  std::optional<api::ApiError> early_end_;
};

}  // namespace pensieve::gateway
