#include "gateway/embedding_relay.h"

#include <algorithm>
#include <utility>
#include <variant>

#include <fmt/core.h>

#include "base/log.h"
#include "gateway/service.h"
#include "gateway/worker_errors.h"
#include "worker/embed_messages.h"
#include "worker/prompt_limit.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
using worker::Frame;
using worker::FrameType;

/// How often who waits for a load is looked at. Choice: a client that has hung up costs nothing
/// but its place meanwhile.
constexpr Duration kClientLookEvery = std::chrono::seconds(1);

}  // namespace

EmbeddingRelay::EmbeddingRelay(Exchange& exchange, model::Pool& pool, const Clock& clock,
                               Traffic& traffic, api::EmbeddingsRequest request,
                               std::string request_id)
    : exchange_(exchange),
      pool_(pool),
      clock_(clock),
      traffic_(traffic),
      request_(std::move(request)),
      request_id_(std::move(request_id)),
      answer_(request_.base64) {
  for (const api::EmbeddingInput& input : request_.inputs) {
    input_bytes_ +=
        sizeof(input) + input.text.capacity() + input.tokens.size() * sizeof(engine::Token);
  }
}

void EmbeddingRelay::end_early(const api::ApiError& error) {
  early_end_ = error;
  if (call_ == nullptr) return;
  call_->cancel();
  call_->interrupt();
}

asio::awaitable<std::optional<std::expected<std::string, api::ApiError>>> EmbeddingRelay::run() {
  exchange_.charge().shrink(needed());
  while (next_ < request_.inputs.size()) {
    std::optional<api::ApiError> error = co_await embed_next();
    if (client_gone_) {
      log::info("{}: the client has hung up", request_id_);
      co_return std::nullopt;
    }
    if (error) {
      log::warning("{}: {}", request_id_, error->message);
      co_return std::unexpected(*std::move(error));
    }
  }
  log::info("{}: {} embeddings of {} tokens", request_id_, request_.inputs.size(), tokens_);
  co_return answer_.finish(request_.model, tokens_);
}

asio::awaitable<std::optional<api::ApiError>> EmbeddingRelay::embed_next() {
  const std::optional<model::Pool::Acquired> acquired = co_await wait_for_worker();
  if (client_gone_) co_return std::nullopt;
  if (early_end_) co_return early_end_;
  const model::Pool::Acquired& link = *acquired;
  if (!link) co_return error_for(link.error());
  if (auto problem = check_input()) co_return problem;
  const api::EmbeddingInput& input = request_.inputs[next_];
  const std::string payload =
      worker::encode(worker::EmbedRequest{.text = input.text, .tokens = input.tokens});
  auto hold = exchange_.charge().charge_frame(needed(), Bytes(payload.size()));
  if (!hold) co_return api::overloaded(describe(hold.error()), 2);
  auto call = (*link)->open(FrameType::kEmbed, payload, std::move(*hold));
  if (!call) {
    // The worker has just ended (or is flooded); the second attempt gets a fresh one.
    if (retried_) co_return api::overloaded(call.error().message, 1);
    retried_ = true;
    co_return std::nullopt;
  }
  call_ = call->get();
  exchange_.on_client_gone([this] { call_->interrupt(); });
  std::optional<api::ApiError> error = co_await take_answer(*call_);
  exchange_.on_client_gone(nullptr);
  call_ = nullptr;
  co_return error;
}

asio::awaitable<std::optional<model::Pool::Acquired>> EmbeddingRelay::wait_for_worker() {
  model::Pool::Wait wait;
  while (true) {
    std::optional<model::Pool::Acquired> acquired =
        co_await pool_.acquire_by(clock_.now() + kClientLookEvery, wait);
    client_gone_ = exchange_.client_gone();
    if (acquired || client_gone_) co_return acquired;
  }
}

/// What is known before the worker is asked, and would be refused whenever it comes.
std::optional<api::ApiError> EmbeddingRelay::check_input() const {
  const engine::ModelInfo info = pool_.status().info.value();
  if (!info.capabilities.embeddings) {
    return api::invalid_request(fmt::format(
        "model {} gives no embeddings, and this server has no other", pool_.model().id));
  }
  const api::EmbeddingInput& input = request_.inputs[next_];
  const bool fits = input.tokens.empty() ? !worker::too_long(input.text.size(), info.context_tokens)
                                         : input.tokens.size() <= info.context_tokens;
  if (fits) return std::nullopt;
  const std::size_t tokens = input.tokens.empty() ? input.text.size() / 4 : input.tokens.size();
  return api::invalid_request(worker::too_long_to_embed(tokens, info.context_tokens));
}

asio::awaitable<std::optional<api::ApiError>> EmbeddingRelay::take_answer(worker::Call& call) {
  // No deadline: a worker that hangs is killed, and whoever is not patient hangs up.
  const worker::CallEvent event = co_await call.next(TimePoint::max());
  if (std::holds_alternative<worker::Interrupted>(event)) {
    client_gone_ = exchange_.client_gone();
    if (client_gone_) co_return std::nullopt;
    co_return early_end_;
  }
  if (const auto* gone = std::get_if<worker::WorkerGone>(&event)) {
    if (retried_) co_return error_of(*gone);
    log::warning("{}: {}; trying once more", request_id_, gone->description);
    retried_ = true;
    co_return std::nullopt;
  }
  if (const auto* frame = std::get_if<Frame>(&event)) co_return add(*frame);
  co_return api::internal("the worker did not answer");
}

/// The worker's answer for one input.
std::optional<api::ApiError> EmbeddingRelay::add(const Frame& frame) {
  if (frame.type == FrameType::kFailed) {
    const auto failed = worker::decode_failed(frame.payload);
    if (!failed) return api::internal(failed.error().message);
    api::ApiError error = error_of(*failed);
    if (request_.inputs.size() > 1)
      error.message = fmt::format("input.{}: {}", next_, error.message);
    return error;
  }
  if (frame.type == FrameType::kRefused) {
    const auto refused = worker::decode_refused(frame.payload);
    if (!refused) return api::internal(refused.error().message);
    ++traffic_.refusals[refused->level];
    return error_of(*refused);
  }
  if (frame.type != FrameType::kEmbedded) {
    return api::internal("the worker sent something unexpected");
  }
  const auto embedded = worker::decode_embedded(frame.payload);
  if (!embedded) return api::internal(embedded.error().message);
  if (request_.dimensions && *request_.dimensions != embedded->embedding.size()) {
    return api::invalid_request(
        fmt::format("dimensions: this model's vectors have {}", embedded->embedding.size()));
  }
  // A number has 15 characters at most, and its comma.
  const std::size_t more = 128 + 16 * embedded->embedding.size();
  if ((next_ == 0 ? request_.inputs.size() : 1) * (request_.base64 ? more / 3 : more) +
          answer_.bytes() >
      kEmbeddingsBytesMax) {
    return api::invalid_request(fmt::format(
        "input: the answer would have more than {} bytes; ask for fewer inputs at once{}",
        kEmbeddingsBytesMax, request_.base64 ? "" : " or for encoding_format base64"));
  }
  if (answer_.bytes() + more > answer_covered_) {
    answer_covered_ = std::max(answer_.bytes() + more, 2 * answer_covered_);
    if (!exchange_.charge().try_grow(needed())) {
      return api::overloaded("memory is short: no room for the whole answer", 5);
    }
  }
  answer_.append(embedded->embedding);
  tokens_ += embedded->input_tokens;
  traffic_.input_tokens += embedded->input_tokens;
  ++next_;
  return std::nullopt;
}

/// The answer's text takes up to three times its length while it grows.
Bytes EmbeddingRelay::needed() const {
  return Bytes(request_bytes(0).count() + input_bytes_ + 3 * answer_covered_);
}

}  // namespace pensieve::gateway
