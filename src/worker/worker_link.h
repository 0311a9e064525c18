// The gateway's end of one worker: starts it, speaks frames with it, notices when it is gone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "worker/frame.h"
#include "worker/messages.h"
#include "worker/worker_process.h"

namespace pensieve::worker {

/// The worker is gone; nothing more comes on this call.
struct WorkerGone {
  WorkerEnd end;
  std::string description;
};
struct TimedOut {};     // The given time is over; the call goes on.
struct Interrupted {};  // Somebody called Call::interrupt().

using CallEvent = std::variant<Frame, WorkerGone, TimedOut, Interrupted>;

class WorkerLink;

/// One request to a worker and what comes back. Its destructor cancels what has not ended.
///
/// Ownership: keeps its link alive. Thread-safety: the link's executor only.
class Call {
 public:
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// Waits for the next event, but at most until `deadline`. Text frames that nobody has taken
  /// yet come as one.
  boost::asio::awaitable<CallEvent> next(TimePoint deadline);

  /// Makes a next() that waits, or the next one, return Interrupted (the client has hung up).
  void interrupt();

  std::uint32_t id() const { return id_; }

 private:
  friend class WorkerLink;
  Call(std::shared_ptr<WorkerLink> link, std::uint32_t id);

  void push(Frame frame);
  void push_gone(const WorkerGone& gone);
  void wake();

  std::shared_ptr<WorkerLink> link_;
  std::uint32_t id_;
  boost::asio::steady_timer wake_;
  std::deque<Frame> frames_;
  std::size_t buffered_bytes_ = 0;
  std::optional<WorkerGone> gone_;
  bool interrupted_ = false;
  bool ended_ = false;  // A closing frame came: nothing is left to cancel.
};

/// A running worker process, seen from the gateway.
///
/// Ends exactly once: `on_end` is called when the process is gone and its verdict is known, after
/// every open call has been told. A worker that sends garbage, or shows no sign of life for
/// `hang_after`, is killed.
///
/// Thread-safety: the executor's single thread only.
class WorkerLink : public std::enable_shared_from_this<WorkerLink> {
 public:
  struct Options {
    std::string program;
    std::vector<std::string> args;
    Duration hang_after = std::chrono::seconds(60);
  };
  /// Bytes of text that a call may hold for a client that does not read; more cancels the call.
  static constexpr std::size_t kCallBufferBytesMax = 4U << 20;
  /// Bytes of frames that wait to be written to the worker; more is refused.
  static constexpr std::size_t kOutgoingBytesMax = 160U << 20;

  static Result<std::shared_ptr<WorkerLink>> start(const boost::asio::any_io_executor& executor,
                                                   const Clock& clock, const Options& options,
                                                   std::function<void(const WorkerGone&)> on_end);
  ~WorkerLink();

  /// Sends a frame under a new request id. Errors: kUnavailable when the worker is gone or too
  /// much waits to be written.
  Result<std::unique_ptr<Call>> open(FrameType type, std::string_view payload);

  /// Asks the worker to stop after what it is doing; it is killed if it has not by `grace`.
  void shut_down(Duration grace);
  /// How long the worker may show no sign of life from now on; Options::hang_after at first.
  void set_hang_after(Duration hang_after) { hang_after_ = hang_after; }

  void kill(WorkerEnd verdict) { process_.kill(verdict); }

  pid_t pid() const { return pid_; }
  /// Frames can be exchanged. False from the end of the socket on, a little before gone().
  bool usable() const { return !socket_ended_; }
  const std::optional<WorkerGone>& gone() const { return gone_; }
  const Hello* hello() const { return hello_ ? &*hello_ : nullptr; }
  const Heartbeat& last_heartbeat() const { return heartbeat_; }

 private:
  friend class Call;
  WorkerLink(const boost::asio::any_io_executor& executor, const Clock& clock,
             const Options& options, WorkerProcess process,
             std::function<void(const WorkerGone&)> on_end);

  boost::asio::awaitable<void> read_frames();
  boost::asio::awaitable<void> write_frames();
  boost::asio::awaitable<void> watch();
  boost::asio::awaitable<void> reap();
  Result<void> dispatch(Frame frame);
  void send(FrameType type, std::uint32_t request, std::string_view payload);
  void close_call(std::uint32_t id);

  boost::asio::any_io_executor executor_;
  const Clock& clock_;
  Duration hang_after_;
  WorkerProcess process_;
  const pid_t pid_;
  boost::asio::local::stream_protocol::socket socket_;
  boost::asio::steady_timer write_wake_;
  boost::asio::steady_timer watch_timer_;
  std::function<void(const WorkerGone&)> on_end_;

  std::deque<std::string> outgoing_;
  std::size_t outgoing_bytes_ = 0;
  std::map<std::uint32_t, Call*> calls_;
  std::uint32_t next_id_ = 1;
  std::optional<Hello> hello_;
  Heartbeat heartbeat_;
  TimePoint last_sign_of_life_;
  std::optional<TimePoint> stop_deadline_;
  bool socket_ended_ = false;
  std::optional<WorkerGone> gone_;
};

}  // namespace pensieve::worker
