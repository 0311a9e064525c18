#include "worker/worker_link.h"

#include <array>
#include <optional>
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
#include "memory/report.h"

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
                                                OnEnd on_end) {
  return start_with(executor, clock, options, std::move(on_end), nullptr, "not asked for");
}

LinkFactory WorkerLink::starting_in(std::shared_ptr<WorkerGroups> groups, std::string why_not) {
  return [groups = std::move(groups), why_not = std::move(why_not)](
             const asio::any_io_executor& executor, const Clock& clock, const Options& options,
             OnEnd on_end) {
    if (!groups) return start_with(executor, clock, options, std::move(on_end), nullptr, why_not);
    Result<std::unique_ptr<WorkerGroup>> group = groups->make();
    if (!group) log::warning("the worker gets no memory group: {}", group.error().message);
    return group ? start_with(executor, clock, options, std::move(on_end), std::move(*group), "")
                 : start_with(executor, clock, options, std::move(on_end), nullptr,
                              group.error().message);
  };
}

Result<std::shared_ptr<Link>> WorkerLink::start_with(const asio::any_io_executor& executor,
                                                     const Clock& clock, const Options& options,
                                                     OnEnd on_end,
                                                     std::unique_ptr<WorkerGroup> group,
                                                     std::string why_no_group) {
  std::vector<std::string> args = options.args;
  if (group) {
    // The worker's own limit is no shortage of memory; its second check has to look past it.
    args.emplace_back("--own-memory-group");
    args.push_back(group->name());
  }
  Result<WorkerProcess> process = WorkerProcess::spawn(options.program, args);
  if (!process) return std::unexpected(process.error());
  if (group) {
    if (const Result<void> confined = process->confine(std::move(group)); !confined) {
      why_no_group = confined.error().message;
      log::warning("worker {} gets no memory group: {}", process->pid(), why_no_group);
    }
  }
  const std::shared_ptr<WorkerLink> link(
      new WorkerLink(executor, clock, options, std::move(*process), std::move(on_end)));
  link->why_no_group_ = std::move(why_no_group);
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

void WorkerLink::set_reserved(Bytes reserved) {
  if (process_.group() == nullptr || gone()) return;
  const Result<void> set = process_.group()->set_reserved(reserved);
  if (!set && !limit_is_off_) log::warning("worker {}: {}", pid_, set.error().message);
  if (set && limit_is_off_) log::info("worker {}: its memory limit is right again", pid_);
  limit_is_off_ = !set;
}

Protections WorkerLink::protections() const {
  Protection limit{"memory limit", false, why_no_group_,
                   "run as root, or as a systemd service with Delegate=yes"};
  if (const WorkerGroup* group = process_.group()) {
    const char* version = group->version() == memory::CgroupVersion::kV1 ? "v1" : "v2";
    limit = {
        "memory limit", true,
        fmt::format("{}GB, cgroup {} {}", memory::gb_text(group->limit()), version, group->name()),
        ""};
  }
  Protections all{std::move(limit)};
  for (const Protection& own : Link::protections()) all.push_back(own);
  return all;
}

std::shared_ptr<WorkerLink> WorkerLink::shared_self() {
  return std::static_pointer_cast<WorkerLink>(shared_from_this());
}

void WorkerLink::write(FrameType type, std::uint32_t request, std::string_view payload) {
  write_held(type, request, payload, nullptr);
}

void WorkerLink::write_held(FrameType type, std::uint32_t request, std::string_view payload,
                            std::shared_ptr<void> hold) {
  outgoing_.push_back({encode_frame(type, request, payload), std::move(hold)});
  outgoing_bytes_ += outgoing_.back().frame.size();
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
    const Outgoing first = std::move(outgoing_.front());
    outgoing_.pop_front();
    const auto [error, written] =
        co_await asio::async_write(socket_, asio::buffer(first.frame), kNoThrow);
    outgoing_bytes_ -= first.frame.size();
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
  outgoing_.clear();  // Nobody reads them any more; the link itself may be held for long.
  write_wake_.cancel();
  co_await reap();
}

/// A worker program that is a script, or an engine that forks, may leave a child that holds the
/// socket: its end would never be seen.
void WorkerLink::look_for_end() {
  if (!process_.has_ended()) return;
  process_.kill_what_it_started();
  if (!std::exchange(seen_ended_, true)) return;  // What it had still sent is being read.
  boost::system::error_code ignored;
  socket_.cancel(ignored);
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
