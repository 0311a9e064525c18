#include "worker/link.h"

#include <algorithm>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"

namespace pensieve::worker {
namespace {

namespace asio = boost::asio;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

/// How often hang and stop deadlines are looked at. Choice: a tenth of the shortest sensible one.
constexpr Duration kWatchInterval = std::chrono::milliseconds(250);

/// Two such frames in a row mean the same as one with both payloads.
bool is_part(FrameType type) {
  return type == FrameType::kText || type == FrameType::kThinking || type == FrameType::kCallInput;
}

bool closes_call(FrameType type) {
  switch (type) {
    case FrameType::kPlanned:
    case FrameType::kLoaded:
    case FrameType::kDone:
    case FrameType::kFailed:
    case FrameType::kRefused:
    case FrameType::kCounted:
    case FrameType::kCleared:
    case FrameType::kEmbedded:
      return true;
    default:
      return false;
  }
}

}  // namespace

Call::Call(std::shared_ptr<Link> link, std::uint32_t id)
    : link_(std::move(link)), id_(id), wake_(link_->executor_, TimePoint::max()) {}

Call::~Call() {
  cancel();
  link_->close_call(id_);
}

asio::awaitable<CallEvent> Call::next(TimePoint deadline) {
  while (true) {
    if (interrupted_) {
      interrupted_ = false;
      co_return Interrupted{};
    }
    if (!frames_.empty()) {
      Frame frame = std::move(frames_.front());
      frames_.pop_front();
      buffered_bytes_ -= frame.payload.size();
      co_return frame;
    }
    if (gone_) co_return *gone_;
    if (link_->clock_.now() >= deadline) co_return TimedOut{};
    wake_.expires_at(deadline);
    co_await wake_.async_wait(kNoThrow);
  }
}

void Call::interrupt() {
  interrupted_ = true;
  wake();
}

void Call::cancel() {
  if (ended_ || gone_) return;
  link_->write_if_usable(FrameType::kCancel, id_, {});
  ended_ = true;
}

void Call::push(Frame frame) {
  if (ended_) return;
  ended_ = closes_call(frame.type);
  buffered_bytes_ += frame.payload.size();
  const bool goes_on = !frames_.empty() && frames_.back().type == frame.type;
  if (goes_on && is_part(frame.type)) {
    frames_.back().payload += frame.payload;
  } else {
    frames_.push_back(std::move(frame));
  }
  if (!ended_ && !has_room()) {
    link_->write_if_usable(FrameType::kCancel, id_, {});
    ended_ = true;
    frames_.push_back({FrameType::kFailed, id_,
                       encode(Failed{Code::kDeadlineExceeded,
                                     "the client does not read its stream fast enough"})});
  }
  wake();
}

bool Call::has_room() {
  if (buffered_bytes_ > Link::kCallBufferBytesMax) return false;
  if (buffered_bytes_ <= covered_bytes_ || !cover_) return true;
  const std::size_t wanted =
      std::min(std::max(buffered_bytes_, 2 * covered_bytes_), Link::kCallBufferBytesMax);
  if (!cover_(wanted)) return false;
  covered_bytes_ = wanted;
  return true;
}

void Call::push_gone(const WorkerGone& gone) {
  if (!ended_) gone_ = gone;
  wake();
}

void Call::wake() {
  wake_.cancel();
}

Link::Link(const asio::any_io_executor& executor, const Clock& clock, LinkOptions options,
           std::function<void(const WorkerGone&)> on_end)
    : executor_(executor),
      clock_(clock),
      options_(std::move(options)),
      hang_after_(options_.hang_after),
      watch_timer_(executor),
      on_end_(std::move(on_end)),
      last_sign_of_life_(clock.now()) {}

Link::~Link() {
  PENSIEVE_CHECK(calls_.empty());
}

Result<void> Link::check_room(std::size_t payload_bytes) const {
  if (gone_ || conversation_over_) return fail(Code::kUnavailable, "the worker is gone");
  if (outgoing_bytes() + payload_bytes > kOutgoingBytesMax) {
    return fail(Code::kUnavailable, "too much is waiting to be sent to the worker");
  }
  return {};
}

std::uint32_t Link::calls_running() const {
  const auto running = std::count_if(calls_.begin(), calls_.end(), [](const auto& entry) {
    return !entry.second->ended_ && !entry.second->gone_;
  });
  return static_cast<std::uint32_t>(running);
}

Result<std::unique_ptr<Call>> Link::open(FrameType type, std::string_view payload,
                                         std::shared_ptr<void> hold) {
  if (const Result<void> room = check_room(payload.size()); !room) {
    return std::unexpected(room.error());
  }
  const std::uint32_t id = next_id_++;
  if (next_id_ == 0) next_id_ = 1;  // 0 is for frames about no request.
  std::unique_ptr<Call> call(new Call(shared_from_this(), id));
  calls_[id] = call.get();
  write_held(type, id, payload, std::move(hold));
  return call;
}

Result<void> Link::send(FrameType type, std::string_view payload) {
  const Result<void> room = check_room(payload.size());
  if (room) write_if_usable(type, 0, payload);
  return room;
}

void Link::shut_down(Duration grace) {
  if (gone_) return;
  expect_stop();
  stop_deadline_ = clock_.now() + grace;
  // Not by send(): what has to end the worker may not be refused for what waits before it.
  write_if_usable(FrameType::kShutdown, 0, {});
}

void Link::write_if_usable(FrameType type, std::uint32_t request, std::string_view payload) {
  if (gone_ || conversation_over_) return;
  write(type, request, payload);
}

Result<void> Link::receive(Frame frame) {
  last_sign_of_life_ = clock_.now();
  if (frame.type == FrameType::kHello) {
    Result<Hello> hello = decode_hello(frame.payload);
    if (!hello) return std::unexpected(hello.error());
    hello_ = std::move(*hello);
    return {};
  }
  if (frame.type == FrameType::kHeartbeat) {
    const Result<Heartbeat> heartbeat = decode_heartbeat(frame.payload);
    if (!heartbeat) return std::unexpected(heartbeat.error());
    heartbeat_ = *heartbeat;
    return {};
  }
  if (static_cast<std::uint8_t>(frame.type) < static_cast<std::uint8_t>(FrameType::kHello)) {
    return fail(Code::kInvalidArgument, "a worker sent a frame that only a gateway may send");
  }
  if (frame.request == 0) {
    if (!options_.on_frame) return {};
    return options_.on_frame(frame);
  }
  const auto call = calls_.find(frame.request);
  // Not there: it was cancelled while this frame was under way.
  if (call != calls_.end()) call->second->push(std::move(frame));
  return {};
}

asio::awaitable<void> Link::watch() {
  const std::shared_ptr<Link> self = shared_from_this();
  bool killed = false;
  while (!conversation_over_) {
    watch_timer_.expires_after(kWatchInterval);
    co_await watch_timer_.async_wait(kNoThrow);
    if (conversation_over_) co_return;
    look_for_end();
    if (killed) continue;
    const TimePoint now = clock_.now();
    if (stop_deadline_ && now >= *stop_deadline_) {
      log::warning("worker {} did not stop when asked and is killed", pid());
      kill(WorkerEnd::kDeadline);
      killed = true;
    } else if (now - last_sign_of_life_ > hang_after_) {
      log::error("worker {} has made no progress for {:.0f} s and is killed", pid(),
                 std::chrono::duration<double>(now - last_sign_of_life_).count());
      kill(WorkerEnd::kDeadline);
      killed = true;
    }
  }
}

void Link::end_conversation() {
  conversation_over_ = true;
  watch_timer_.cancel();
}

void Link::tell_end(WorkerGone gone) {
  PENSIEVE_CHECK(conversation_over_ && !gone_);
  gone_ = std::move(gone);
  if (gone_->end == WorkerEnd::kClean) {
    log::info("worker {} ended: {}", pid(), gone_->description);
  } else {
    log::error("worker {} ended: {}", pid(), gone_->description);
  }
  for (const auto& [id, call] : calls_) call->push_gone(*gone_);
  if (on_end_) on_end_(*gone_);
}

}  // namespace pensieve::worker
