// A link to a real worker process over a Unix socketpair: starts it, reads, writes, reaps.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/timer.h"
#include "worker/link.h"
#include "worker/worker_groups.h"
#include "worker/worker_process.h"

namespace pensieve::worker {

/// The Link of a process of its own. It holds itself until the process is reaped.
///
/// Thread-safety: the executor's single thread only.
class WorkerLink final : public Link {
 public:
  using Options = LinkOptions;

  /// A LinkFactory.
  static Result<std::shared_ptr<Link>> start(const boost::asio::any_io_executor& executor,
                                             const Clock& clock, const Options& options,
                                             std::function<void(const WorkerGone&)> on_end);

  /// The same with a memory group for each worker. Where there can be none, `groups` is null and
  /// `why_not` says why; a single group that cannot be made is a warning, not a failed start.
  static LinkFactory starting_in(std::shared_ptr<WorkerGroups> groups, std::string why_not);

  void kill(WorkerEnd verdict) override { process_.kill(verdict); }
  pid_t pid() const override { return pid_; }
  void set_reserved(Bytes reserved) override;
  Protections protections() const override;

 private:
  using OnEnd = std::function<void(const WorkerGone&)>;
  static Result<std::shared_ptr<Link>> start_with(const boost::asio::any_io_executor& executor,
                                                  const Clock& clock, const Options& options,
                                                  OnEnd on_end, std::unique_ptr<WorkerGroup> group,
                                                  std::string why_no_group);
  WorkerLink(const boost::asio::any_io_executor& executor, const Clock& clock,
             const Options& options, WorkerProcess process,
             std::function<void(const WorkerGone&)> on_end);

  void write(FrameType type, std::uint32_t request, std::string_view payload) override;
  void write_held(FrameType type, std::uint32_t request, std::string_view payload,
                  std::shared_ptr<void> hold) override;
  std::size_t outgoing_bytes() const override { return outgoing_bytes_; }
  void expect_stop() override { process_.expect_stop(); }
  void look_for_end() override;

  std::shared_ptr<WorkerLink> shared_self();
  boost::asio::awaitable<void> read_frames();
  boost::asio::awaitable<void> write_frames();
  boost::asio::awaitable<void> reap();

  WorkerProcess process_;
  std::string why_no_group_;
  bool limit_is_off_ = false;  // The limit could not be set to what is reserved; logged once.
  bool seen_ended_ = false;    // By look_for_end(), once.
  const pid_t pid_;
  boost::asio::local::stream_protocol::socket socket_;
  Timer write_wake_;
  Timer reap_timer_;
  struct Outgoing {
    std::string frame;
    std::shared_ptr<void> hold;
  };
  std::deque<Outgoing> outgoing_;
  std::size_t outgoing_bytes_ = 0;
};

}  // namespace pensieve::worker
