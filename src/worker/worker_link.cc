#include "worker/worker_link.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "base/log.h"

namespace pensieve::worker {
namespace {

namespace asio = boost::asio;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

/// How often hang and stop deadlines are looked at. Choice: a tenth of the shortest sensible one.
constexpr Duration kWatchInterval = std::chrono::milliseconds(250);
/// How long a process may take to be gone once its socket has ended, before it is killed.
constexpr Duration kReapGrace = std::chrono::seconds(2);
constexpr Duration kReapInterval = std::chrono::milliseconds(5);

bool closes_call(FrameType type) {
  switch (type) {
    case FrameType::kPlanned:
    case FrameType::kLoaded:
    case FrameType::kDone:
    case FrameType::kFailed:
    case FrameType::kRefused:
    case FrameType::kCounted:
    case FrameType::kCleared:
      return true;
    default:
      return false;
  }
}

}  // namespace

Call::Call(std::shared_ptr<WorkerLink> link, std::uint32_t id)
    : link_(std::move(link)), id_(id), wake_(link_->executor_, TimePoint::max()) {}

Call::~Call() {
  if (!ended_ && !gone_) link_->send(FrameType::kCancel, id_, {});
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

void Call::push(Frame frame) {
  if (ended_) return;
  ended_ = closes_call(frame.type);
  buffered_bytes_ += frame.payload.size();
  if (frame.type == FrameType::kText && !frames_.empty() &&
      frames_.back().type == FrameType::kText) {
    frames_.back().payload += frame.payload;
  } else {
    frames_.push_back(std::move(frame));
  }
  if (buffered_bytes_ > WorkerLink::kCallBufferBytesMax && !ended_) {
    link_->send(FrameType::kCancel, id_, {});
    ended_ = true;
    frames_.push_back({FrameType::kFailed, id_,
                       encode(Failed{Code::kDeadlineExceeded,
                                     "the client does not read its stream fast enough"})});
  }
  wake();
}

void Call::push_gone(const WorkerGone& gone) {
  if (!ended_) gone_ = gone;
  wake();
}

void Call::wake() {
  wake_.cancel();
}

Result<std::shared_ptr<WorkerLink>> WorkerLink::start(
    const asio::any_io_executor& executor, const Clock& clock, const Options& options,
    std::function<void(const WorkerGone&)> on_end) {
  Result<WorkerProcess> process = WorkerProcess::spawn(options.program, options.args);
  if (!process) return std::unexpected(process.error());
  std::shared_ptr<WorkerLink> link(
      new WorkerLink(executor, clock, options, std::move(*process), std::move(on_end)));
  boost::system::error_code error;
  link->socket_.assign(asio::local::stream_protocol(), link->process_.release_socket(), error);
  if (error) return fail(Code::kInternal, "worker socket: " + error.message());
  // Each coroutine holds the link, so that it lives until its process is reaped.
  asio::co_spawn(executor, link->read_frames(), asio::detached);
  asio::co_spawn(executor, link->write_frames(), asio::detached);
  asio::co_spawn(executor, link->watch(), asio::detached);
  return link;
}

WorkerLink::WorkerLink(const asio::any_io_executor& executor, const Clock& clock,
                       const Options& options, WorkerProcess process,
                       std::function<void(const WorkerGone&)> on_end)
    : executor_(executor),
      clock_(clock),
      hang_after_(options.hang_after),
      process_(std::move(process)),
      pid_(process_.pid()),
      socket_(executor),
      write_wake_(executor, TimePoint::max()),
      watch_timer_(executor),
      on_end_(std::move(on_end)),
      last_sign_of_life_(clock.now()) {}

WorkerLink::~WorkerLink() {
  PENSIEVE_CHECK(calls_.empty());
}

Result<std::unique_ptr<Call>> WorkerLink::open(FrameType type, std::string_view payload) {
  if (gone_ || socket_ended_) return fail(Code::kUnavailable, "the worker is gone");
  if (outgoing_bytes_ + payload.size() > kOutgoingBytesMax) {
    return fail(Code::kUnavailable, "too much is waiting to be sent to the worker");
  }
  const std::uint32_t id = next_id_++;
  if (next_id_ == 0) next_id_ = 1;  // 0 is for frames about no request.
  std::unique_ptr<Call> call(new Call(shared_from_this(), id));
  calls_[id] = call.get();
  send(type, id, payload);
  return call;
}

void WorkerLink::shut_down(Duration grace) {
  if (gone_) return;
  process_.expect_stop();
  stop_deadline_ = clock_.now() + grace;
  send(FrameType::kShutdown, 0, {});
}

void WorkerLink::send(FrameType type, std::uint32_t request, std::string_view payload) {
  if (gone_ || socket_ended_) return;
  outgoing_.push_back(encode_frame(type, request, payload));
  outgoing_bytes_ += outgoing_.back().size();
  write_wake_.cancel();
}

void WorkerLink::close_call(std::uint32_t id) {
  calls_.erase(id);
}

asio::awaitable<void> WorkerLink::write_frames() {
  const std::shared_ptr<WorkerLink> self = shared_from_this();
  while (!socket_ended_) {
    if (outgoing_.empty()) {
      write_wake_.expires_at(TimePoint::max());
      co_await write_wake_.async_wait(kNoThrow);
      continue;
    }
    const std::string frame = std::move(outgoing_.front());
    outgoing_.pop_front();
    const auto [error, written] =
        co_await asio::async_write(socket_, asio::buffer(frame), kNoThrow);
    outgoing_bytes_ -= frame.size();
    if (error) co_return;  // read_frames() sees the same end and acts on it.
  }
}

asio::awaitable<void> WorkerLink::read_frames() {
  const std::shared_ptr<WorkerLink> self = shared_from_this();
  std::array<std::byte, kFrameHeaderBytes> bytes{};
  while (true) {
    const auto [error, got] = co_await asio::async_read(socket_, asio::buffer(bytes), kNoThrow);
    if (error) break;
    const Result<FrameHeader> header = decode_header(bytes);
    if (!header) {
      log::error("worker {}: {}", pid_, header.error().message);
      process_.kill(WorkerEnd::kProtocolError);
      break;
    }
    Frame frame{header->type, header->request, std::string(header->length, '\0')};
    const auto [cut, length] =
        co_await asio::async_read(socket_, asio::buffer(frame.payload), kNoThrow);
    if (cut) break;
    last_sign_of_life_ = clock_.now();
    const Result<void> understood = dispatch(std::move(frame));
    if (!understood) {
      log::error("worker {}: {}", pid_, understood.error().message);
      process_.kill(WorkerEnd::kProtocolError);
      break;
    }
  }
  socket_ended_ = true;
  write_wake_.cancel();
  watch_timer_.cancel();
  co_await reap();
}

Result<void> WorkerLink::dispatch(Frame frame) {
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
  const auto call = calls_.find(frame.request);
  // Not there: it was cancelled while this frame was under way.
  if (call != calls_.end()) call->second->push(std::move(frame));
  return {};
}

asio::awaitable<void> WorkerLink::watch() {
  const std::shared_ptr<WorkerLink> self = shared_from_this();
  while (!socket_ended_) {
    watch_timer_.expires_after(kWatchInterval);
    co_await watch_timer_.async_wait(kNoThrow);
    if (socket_ended_) co_return;
    const TimePoint now = clock_.now();
    if (stop_deadline_ && now >= *stop_deadline_) {
      log::warning("worker {} did not stop when asked and is killed", pid_);
      process_.kill(WorkerEnd::kDeadline);
    } else if (now - last_sign_of_life_ > hang_after_) {
      log::error("worker {} has made no progress for {:.0f} s and is killed", pid_,
                 std::chrono::duration<double>(now - last_sign_of_life_).count());
      process_.kill(WorkerEnd::kDeadline);
    }
  }
}

asio::awaitable<void> WorkerLink::reap() {
  const TimePoint give_up = clock_.now() + kReapGrace;
  std::optional<WorkerProcess::End> end = process_.try_reap();
  while (!end) {
    // It closed its socket but lives on: nobody can talk to it any more.
    if (clock_.now() >= give_up) process_.kill(WorkerEnd::kProtocolError);
    watch_timer_.expires_after(kReapInterval);
    co_await watch_timer_.async_wait(kNoThrow);
    end = process_.try_reap();
  }
  boost::system::error_code ignored;
  socket_.close(ignored);
  gone_ = WorkerGone{end->end, describe(end->end, end->wait_status)};
  if (gone_->end == WorkerEnd::kClean) {
    log::info("worker {} ended: {}", pid_, gone_->description);
  } else {
    log::error("worker {} ended: {}", pid_, gone_->description);
  }
  for (const auto& [id, call] : calls_) call->push_gone(*gone_);
  if (on_end_) on_end_(*gone_);
}

}  // namespace pensieve::worker
