#include "gateway/message_relay.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "gateway/service.h"
#include "gateway/worker_errors.h"
#include "worker/prompt_limit.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;
using worker::Frame;
using worker::FrameType;

/// anthropic-wire.md §4, long silences: clients give up after 300 s without an event.
constexpr Duration kPingEvery = std::chrono::seconds(10);
/// How long message_start waits for what the cache holds, so that its usage is true. A request
/// that finds a free sequence starts at once; one that has to wait is not kept waiting for this.
constexpr Duration kStartedWait = std::chrono::milliseconds(50);
/// Pings alone carry a client over 600 s at most; from here on an open block with empty deltas
/// takes their place, for which no limit was seen.
constexpr Duration kPingsSuffice = std::chrono::seconds(240);
/// How long a stream waits for what may still be refused with a status of its own: KV cells
/// (kCellsWaitMax) and some steps of the engine, or the plan of a load. Choice: below the idle
/// limits of the proxies that have the shortest (30 s).
constexpr Duration kStreamSilenceMax = std::chrono::seconds(20);
/// The same for an answer that is sent whole. Choice: Node's fetch() gives up after 300 s without
/// a head, the SDKs after 600 s.
constexpr Duration kWholeSilenceMax = std::chrono::seconds(240);

api::StopReason reason_of(worker::StopCause cause) {
  switch (cause) {
    case worker::StopCause::kEndOfTurn:
      return api::StopReason::kEndTurn;
    case worker::StopCause::kTokenLimit:
      return api::StopReason::kMaxTokens;
    case worker::StopCause::kStopSequence:
      return api::StopReason::kStopSequence;
    case worker::StopCause::kWindowFull:
      return api::StopReason::kContextWindowExceeded;
  }
  return api::StopReason::kEndTurn;
}

}  // namespace

MessageRelay::MessageRelay(Exchange& exchange, model::Pool& pool, const Clock& clock,
                           Traffic& traffic, api::MessagesRequest request, std::string request_id,
                           Headers headers, api::AnswerFormat& format)
    : exchange_(exchange),
      pool_(pool),
      clock_(clock),
      traffic_(traffic),
      request_(std::move(request)),
      request_id_(std::move(request_id)),
      format_(format),
      headers_(std::move(headers)),
      began_at_(clock.now()),
      blocks_(format, request_.stream, request_.thinking_display),
      next_ping_(clock.now() + kPingEvery) {}

MessageRelay::~MessageRelay() {
  ++traffic_.messages[end_];
}

asio::awaitable<std::optional<api::ApiError>> MessageRelay::run() {
  prompt_bytes_ = worker::text_bytes(request_.prompt);
  payload_ = worker::encode(worker::GenerateRequest{.prompt = std::exchange(request_.prompt, {}),
                                                    .output_tokens_max = request_.output_tokens_max,
                                                    .stop_sequences = request_.stop_sequences,
                                                    .sampling = request_.sampling});
  exchange_.charge().shrink(Bytes(needed().count() + payload_.size()));
  begin_whole();
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::optional<model::Pool::Acquired> acquired = co_await wait_for_worker();
    if (!acquired || exchange_.client_gone()) co_return std::nullopt;
    const model::Pool::Acquired& link = *acquired;
    if (early_end_ || !link) {
      // Named, because g++ 12 loses its way with a conditional inside a co_await expression.
      const api::ApiError error = early_end_ ? *early_end_ : error_for(link.error());
      co_await end_with_error(error);
      co_return unsent_error_;
    }
    if (const auto problem = worker::too_long(prompt_bytes_, pool_.status().info->context_tokens)) {
      co_await end_with_error(api::invalid_request(*problem));
      co_return unsent_error_;
    }
    auto hold = exchange_.charge().charge_frame(needed(), Bytes(payload_.size()));
    if (!hold) {
      co_await end_with_error(api::overloaded(describe(hold.error()), 2));
      co_return unsent_error_;
    }
    auto call = (*link)->open(FrameType::kGenerate, payload_, std::move(*hold));
    if (!call) {
      // The worker has just ended (or is flooded); the second attempt gets a fresh one.
      if (attempt == 0) continue;
      co_await end_with_error(api::overloaded(call.error().message, 1));
      co_return unsent_error_;
    }
    call_ = call->get();
    call_->cover_by([this](std::size_t bytes) { return cover(bytes, answer_covered_); });
    exchange_.on_client_gone([this] { call_->interrupt(); });
    const Outcome outcome = co_await relay(*call_);
    exchange_.on_client_gone(nullptr);
    call_ = nullptr;
    if (outcome == Outcome::kEnded) co_return unsent_error_;
    const worker::WorkerGone gone = gone_.value();
    const bool nothing_sent = request_.stream ? blocks_.bytes() == 0 : true;
    if (attempt == 0 && nothing_sent) {
      log::warning("{}: {}; trying once more", request_id_, gone.description);
      blocks_.forget();
      begin_whole();
      continue;
    }
    co_await end_with_error(error_of(gone));
    break;
  }
  co_return unsent_error_;
}

/// As begin_stream() does for an answer that is streamed.
void MessageRelay::begin_whole() {
  if (request_.stream || !request_.failed_search) return;
  blocks_.failed_search(*request_.failed_search);
}

asio::awaitable<std::optional<model::Pool::Acquired>> MessageRelay::wait_for_worker() {
  model::Pool::Wait wait;
  while (true) {
    std::optional<model::Pool::Acquired> acquired = co_await pool_.acquire_by(next_ping_, wait);
    if (acquired) co_return acquired;
    const bool alive = co_await heartbeat();
    if (!alive) co_return std::nullopt;
  }
}

Bytes MessageRelay::needed() const {
  // Text is at most four times what it counts: while a string grows, or as JSON beside the text.
  return Bytes(request_bytes(0).count() + payload_.size() + 4 * (call_covered_ + answer_covered_));
}

bool MessageRelay::cover(std::size_t call_bytes, std::size_t answer_bytes) {
  const std::size_t call_before = std::exchange(call_covered_, call_bytes);
  const std::size_t answer_before = std::exchange(answer_covered_, answer_bytes);
  if (exchange_.charge().try_grow(needed())) return true;
  call_covered_ = call_before;
  answer_covered_ = answer_before;
  return false;
}

void MessageRelay::end_early(const api::ApiError& error) {
  early_end_ = error;
  if (call_ == nullptr) return;
  call_->cancel();
  call_->interrupt();
}

asio::awaitable<MessageRelay::Outcome> MessageRelay::relay(worker::Call& call) {
  while (true) {
    const TimePoint until = begin_by_.value_or(next_ping_);
    worker::CallEvent event = co_await call.next(until);
    if (const auto* gone = std::get_if<worker::WorkerGone>(&event)) {
      gone_ = *gone;
      co_return Outcome::kWorkerGone;
    }
    if (std::holds_alternative<worker::Interrupted>(event)) {
      if (early_end_ && !exchange_.client_gone()) {
        co_await end_with_error(*early_end_);
        co_return Outcome::kEnded;
      }
      log::info("{}: the client has hung up", request_id_);
      co_return Outcome::kEnded;
    }
    if (std::holds_alternative<worker::TimedOut>(event)) {
      bool alive = false;
      if (begin_by_) {
        alive = co_await begin_stream();
      } else {
        alive = co_await heartbeat();
      }
      if (!alive) co_return Outcome::kEnded;
      continue;
    }
    if (computed_tokens_ > 0) ++frames_;
    const bool more = co_await take(std::move(std::get<Frame>(event)));
    if (!more) co_return Outcome::kEnded;
  }
}

/// Returns whether more is to come.
asio::awaitable<bool> MessageRelay::take(Frame frame) {
  switch (frame.type) {
    case FrameType::kAccepted:
      if (const auto event = worker::decode_accepted(frame.payload)) {
        input_tokens_ = event->input_tokens;
        if (request_.stream && !begun_) begin_by_ = clock_.now() + kStartedWait;
        co_return true;
      }
      break;
    case FrameType::kStarted:
      if (const auto event = worker::decode_started(frame.payload)) {
        cached_tokens_ = event->cached_tokens;
        traffic_.input_tokens += input_tokens_;
        traffic_.cached_tokens += cached_tokens_;
        computed_tokens_ = input_tokens_ - cached_tokens_;
        co_return co_await begin_stream();
      }
      break;
    case FrameType::kText:
    case FrameType::kThinking:
    case FrameType::kCallStart:
    case FrameType::kCallInput:
    case FrameType::kCallEnd:
      co_return co_await pass_on(frame);
    case FrameType::kDone:
      if (const auto event = worker::decode_done(frame.payload)) {
        co_await done(*event);
        co_return false;
      }
      break;
    case FrameType::kFailed:
      if (const auto event = worker::decode_failed(frame.payload)) {
        co_await end_with_error(error_of(*event));
        co_return false;
      }
      break;
    case FrameType::kRefused:
      if (const auto event = worker::decode_refused(frame.payload)) {
        ++traffic_.refusals[event->level];
        co_await end_with_error(error_of(*event));
        co_return false;
      }
      break;
    default:
      break;
  }
  co_await end_with_error(api::internal("the worker sent something unexpected"));
  co_return false;
}

asio::awaitable<bool> MessageRelay::begin_stream() {
  begin_by_.reset();
  if (!request_.stream || begun_) co_return true;
  const bool begun = co_await begin_body("text/event-stream; charset=utf-8");
  if (!begun) co_return false;
  std::string opening = format_.start(request_.model, usage(0, 0));
  if (request_.failed_search) opening += blocks_.failed_search(*request_.failed_search);
  co_return co_await exchange_.write(opening);
}

asio::awaitable<bool> MessageRelay::begin_body(std::string_view content_type) {
  Headers headers = headers_;
  headers.emplace_back("content-type", content_type);
  if (request_.stream) headers.emplace_back("cache-control", "no-cache");
  begun_ = true;
  ++traffic_.responses[200];
  co_return co_await exchange_.begin_stream(std::move(headers));
}

/// The events of one piece of the answer; empty where a worker that we trust would not send it now.
std::optional<std::string> MessageRelay::content(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kText:
      return blocks_.text(frame.payload);
    case FrameType::kThinking:
      return blocks_.thinking(frame.payload);
    case FrameType::kCallStart:
      return blocks_.call_start(frame.payload);
    case FrameType::kCallInput:
      if (blocks_.in_call()) return blocks_.call_input(frame.payload);
      break;
    case FrameType::kCallEnd:
      if (blocks_.in_call()) return blocks_.call_end();
      break;
    default:
      break;
  }
  return std::nullopt;
}

asio::awaitable<bool> MessageRelay::pass_on(const Frame& frame) {
  const bool is_kept =
      !request_.stream || (frame.type == FrameType::kThinking && blocks_.keeps_thoughts());
  if (is_kept) {
    const std::size_t wanted = blocks_.bytes() + frame.payload.size();
    if (wanted > kAnswerBytesMax) {
      co_await end_with_error(api::internal("the answer is too long to be sent in one piece"));
      co_return false;
    }
    if (wanted > std::max(answer_covered_, worker::Call::kCoveredBytes) &&
        !cover(call_covered_, std::max(wanted, 2 * answer_covered_))) {
      co_await end_with_error(api::overloaded("memory is short: no room for the whole answer", 5));
      co_return false;
    }
  }
  if (request_.stream && !payload_.empty() && blocks_.bytes() > 0) {
    payload_ = std::string();  // From here on nobody else can take over.
    exchange_.charge().shrink(needed());
  }
  const std::optional<std::string> events = content(frame);
  if (!events) {
    co_await end_with_error(api::internal("the worker sent something unexpected"));
    co_return false;
  }
  if (!request_.stream) co_return true;
  co_return co_await exchange_.write(*events);
}

/// Something for a client that waits. Returns false when it is gone.
asio::awaitable<bool> MessageRelay::heartbeat() {
  const TimePoint now = clock_.now();
  const Duration waited = now - began_at_;
  next_ping_ = now + kPingEvery;
  if (exchange_.client_gone()) co_return false;
  if (!request_.stream) {
    if (waited < kWholeSilenceMax || !exchange_.shows_cuts()) co_return true;
    if (!begun_) {
      const bool begun = co_await begin_body("application/json");
      if (!begun) co_return false;
    }
    co_return co_await exchange_.write(" ");  // White space in front of JSON has no meaning.
  }
  if (!begun_) {
    if (waited < kStreamSilenceMax) co_return true;
    co_return co_await begin_stream();
  }
  if (blocks_.bytes() == 0 && waited > kPingsSuffice) {
    // Of a model that was never loaded nobody knows whether it thinks. Thoughts that do not come
    // leave an empty block, which has no meaning; a text in front of thoughts would have one.
    const std::optional<engine::ModelInfo> info = pool_.status().info;
    const std::string events = blocks_.keep_awake(!info || info->capabilities.thinking);
    co_return co_await exchange_.write(events);
  }
  co_return co_await exchange_.write(format_.ping());
}

asio::awaitable<void> MessageRelay::done(const worker::Done& event) {
  log_end(event);
  traffic_.output_tokens += event.output_tokens;
  output_tokens_ = event.output_tokens;
  std::string events = blocks_.finish();
  const bool calls = event.cause == worker::StopCause::kEndOfTurn && blocks_.calls() > 0;
  const api::Stop stop{calls ? api::StopReason::kToolUse : reason_of(event.cause),
                       event.stop_sequence};
  const api::Usage total = usage(event.output_tokens, event.thinking_tokens);
  if (!request_.stream && !begun_) {
    HttpResponse response;
    response.headers = headers_;
    response.body = format_.whole(request_.model, blocks_.blocks(), stop, total);
    ++traffic_.responses[response.status];
    co_await exchange_.respond(std::move(response));
    if (!exchange_.client_gone()) end_ = MessageEnd::kComplete;
    co_return;
  }
  if (request_.stream) {
    events += format_.end(stop, total);
  } else {
    events = format_.whole(request_.model, blocks_.blocks(), stop, total);
  }
  const bool written = co_await exchange_.write(events);
  if (!written) co_return;
  end_ = MessageEnd::kComplete;
  co_await exchange_.end_stream();
}

/// Once a stream has begun the error goes out as its last event, and a whole answer that has begun
/// is cut off behind the error, so that nobody takes it for the answer; before, the caller answers.
asio::awaitable<void> MessageRelay::end_with_error(api::ApiError error) {
  log::warning("{}: {}", request_id_, error.message);
  if (!begun_) {
    unsent_error_ = std::move(error);
    end_ = MessageEnd::kErrorStatus;
    co_return;
  }
  std::string last;
  if (request_.stream) {
    last = format_.error(error, request_id_);
  } else {
    last = format_.whole_error(error, request_id_);
  }
  const bool written = co_await exchange_.write(last);
  if (!written) co_return;
  end_ = MessageEnd::kErrorEvent;
  if (!request_.stream) {
    exchange_.cut_stream();
    co_return;
  }
  co_await exchange_.end_stream();
}

api::Usage MessageRelay::usage(std::uint32_t output_tokens, std::uint32_t thinking_tokens) const {
  return {.input_tokens = input_tokens_ - cached_tokens_,
          .cache_creation_input_tokens = 0,
          .cache_read_input_tokens = cached_tokens_,
          .output_tokens = output_tokens,
          .thinking_tokens = thinking_tokens};
}

void MessageRelay::log_end(const worker::Done& event) const {
  const double rate = event.decode_seconds > 0
                          ? static_cast<double>(event.output_tokens) / event.decode_seconds
                          : 0.0;
  log::info("{}: {} in {} tokens ({} from cache), out {} tokens; prompt {:.2f} s, {:.1f} tokens/s",
            request_id_, api::name(reason_of(event.cause)), input_tokens_, cached_tokens_,
            event.output_tokens, event.prefill_seconds, rate);
}

}  // namespace pensieve::gateway
