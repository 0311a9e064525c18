#include "worker/worker_link.h"

#include <array>
#include <optional>
#include <utility>

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

/// How long a process may take to be gone once its socket has ended, before it is killed.
constexpr Duration kReapGrace = std::chrono::seconds(2);
constexpr Duration kReapInterval = std::chrono::milliseconds(5);

}  // namespace

Result<std::shared_ptr<Link>> WorkerLink::start(const asio::any_io_executor& executor,
                                                const Clock& clock, const Options& options,
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
    : Link(executor, clock, options, std::move(on_end)),
      process_(std::move(process)),
      pid_(process_.pid()),
      socket_(executor),
      write_wake_(executor, TimePoint::max()),
      reap_timer_(executor) {}

std::shared_ptr<WorkerLink> WorkerLink::shared_self() {
  return std::static_pointer_cast<WorkerLink>(shared_from_this());
}

void WorkerLink::write(FrameType type, std::uint32_t request, std::string_view payload) {
  outgoing_.push_back(encode_frame(type, request, payload));
  outgoing_bytes_ += outgoing_.back().size();
  write_wake_.cancel();
}

asio::awaitable<void> WorkerLink::write_frames() {
  const std::shared_ptr<WorkerLink> self = shared_self();
  while (usable()) {
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
  const std::shared_ptr<WorkerLink> self = shared_self();
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
    const Result<void> understood = receive(std::move(frame));
    if (!understood) {
      log::error("worker {}: {}", pid_, understood.error().message);
      process_.kill(WorkerEnd::kProtocolError);
      break;
    }
  }
  end_conversation();
  write_wake_.cancel();
  co_await reap();
}

asio::awaitable<void> WorkerLink::reap() {
  const TimePoint give_up = clock().now() + kReapGrace;
  std::optional<WorkerProcess::End> end = process_.try_reap();
  while (!end) {
    // It closed its socket but lives on: nobody can talk to it any more.
    if (clock().now() >= give_up) process_.kill(WorkerEnd::kProtocolError);
    reap_timer_.expires_after(kReapInterval);
    co_await reap_timer_.async_wait(kNoThrow);
    end = process_.try_reap();
  }
  boost::system::error_code ignored;
  socket_.close(ignored);
  tell_end(WorkerGone{end->end, describe(end->end, end->wait_status)});
}

}  // namespace pensieve::worker
