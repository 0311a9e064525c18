// The gateway's end of one worker: requests to it, frames from it, and when it counts as hung.
// What is behind it is a process and a socket (worker_link.h), or a simulation.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/protection.h"
#include "base/timer.h"
#include "worker/frame.h"
#include "worker/messages.h"
#include "worker/worker_end.h"

namespace pensieve::worker {

/// The worker is gone; nothing more comes on this call.
struct WorkerGone {
  WorkerEnd end;
  std::string description;
};
struct TimedOut {};     // The given time is over; the call goes on.
struct Interrupted {};  // Somebody called Call::interrupt().

using CallEvent = std::variant<Frame, WorkerGone, TimedOut, Interrupted>;

class Link;

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

  /// From now on `cover` is asked before the call holds more than kCoveredBytes for a client that
  /// does not read, with a figure that at least doubles each time. False cancels the call as
  /// kCallBufferBytesMax does. Never called after the call's end.
  void cover_by(std::function<bool(std::size_t bytes)> cover) { cover_ = std::move(cover); }
  static constexpr std::size_t kCoveredBytes = 16U << 10;

  /// Makes a next() that waits, or the next one, return Interrupted (the client has hung up).
  void interrupt();

  /// Tells the worker at once that nobody wants the rest; next() gives what came before. The
  /// destructor does the same, but may come late: its owner may be waiting for a slow client.
  void cancel();

  std::uint32_t id() const { return id_; }

 private:
  friend class Link;
  Call(std::shared_ptr<Link> link, std::uint32_t id);

  void push(Frame frame);
  bool has_room();
  void push_gone(const WorkerGone& gone);
  void wake();

  std::shared_ptr<Link> link_;
  std::uint32_t id_;
  Timer wake_;
  std::deque<Frame> frames_;
  std::size_t buffered_bytes_ = 0;
  std::function<bool(std::size_t)> cover_;
  std::size_t covered_bytes_ = kCoveredBytes;
  std::optional<WorkerGone> gone_;
  bool interrupted_ = false;
  bool ended_ = false;  // A closing frame came: nothing is left to cancel.
};

struct LinkOptions {
  std::string program;
  std::vector<std::string> args;
  Duration hang_after = std::chrono::seconds(60);
  /// Frames about the worker that are neither hello nor heartbeat; without it they are dropped.
  /// An error means that the frame makes no sense, and ends the worker: protocol error.
  std::function<Result<void>(const Frame& frame)> on_frame = nullptr;
};

/// A running worker, seen from the gateway.
///
/// Ends exactly once: `on_end` is called when the process is gone and its verdict is known, after
/// every open call has been told. A worker that sends garbage, or shows no sign of life for
/// `hang_after`, is killed.
///
/// Thread-safety: the executor's single thread only.
class Link : public std::enable_shared_from_this<Link> {
 public:
  /// Bytes of text that a call may hold for a client that does not read; more cancels the call.
  static constexpr std::size_t kCallBufferBytesMax = 4U << 20;
  /// Bytes of frames that wait to be written to the worker; more is refused.
  static constexpr std::size_t kOutgoingBytesMax = 160U << 20;

  virtual ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /// Sends a frame under a new request id. `hold` lives until the frame is written or dropped: the
  /// account of the memory that it takes. Errors: kUnavailable when the worker is gone or too much
  /// waits to be written.
  Result<std::unique_ptr<Call>> open(FrameType type, std::string_view payload,
                                     std::shared_ptr<void> hold = nullptr);

  /// Sends a frame about the worker, not about a request. Errors: as open().
  Result<void> send(FrameType type, std::string_view payload);

  /// Asks the worker to stop after what it is doing; it is killed if it has not by `grace`.
  void shut_down(Duration grace);
  /// How long the worker may show no sign of life from now on; LinkOptions::hang_after at first.
  void set_hang_after(Duration hang_after) { hang_after_ = hang_after; }

  /// Ends the worker at once, with the reason. The first reason counts.
  virtual void kill(WorkerEnd verdict) = 0;
  virtual pid_t pid() const = 0;

  /// Says how much is reserved for the worker, so that it can be held to that. To be called before
  /// the worker may take more, and as often as the reservation is looked at (WorkerGroup). What has
  /// no memory group of its own is not held to anything.
  virtual void set_reserved(Bytes /*reserved*/) {}
  /// How the worker is kept from doing harm; complete once it has said hello.
  virtual Protections protections() const { return hello_ ? hello_->protections : Protections(); }
  /// Calls whose last frame has not come and that were not cancelled: what the worker works for.
  std::uint32_t calls_running() const;

  /// Frames can be exchanged. False from the end of the conversation on, a little before gone().
  bool usable() const { return !conversation_over_; }
  const std::optional<WorkerGone>& gone() const { return gone_; }
  const Hello* hello() const { return hello_ ? &*hello_ : nullptr; }
  const Heartbeat& last_heartbeat() const { return heartbeat_; }

 protected:
  Link(const boost::asio::any_io_executor& executor, const Clock& clock, LinkOptions options,
       std::function<void(const WorkerGone&)> on_end);

  // What an implementation does for this class.

  /// Queues a frame; never called once the conversation is over.
  virtual void write(FrameType type, std::uint32_t request, std::string_view payload) = 0;
  /// The same for a frame with a `hold`; what has no queue has nothing to keep it for.
  virtual void write_held(FrameType type, std::uint32_t request, std::string_view payload,
                          std::shared_ptr<void> /*hold*/) {
    write(type, request, payload);
  }
  /// Of the frames that are queued and not yet written.
  virtual std::size_t outgoing_bytes() const = 0;
  /// A stop was asked for; an exit with code 0 is a clean end from now on.
  virtual void expect_stop() = 0;
  /// Called by watch() all the time: the worker may have died and left something behind that keeps
  /// the conversation open. Has to end it then.
  virtual void look_for_end() {}

  // What an implementation calls.

  /// Kills the worker once it hangs or does not stop when asked. To be spawned once; ends when the
  /// conversation is over.
  boost::asio::awaitable<void> watch();
  /// A frame from the worker. After an error there is nothing more to say: the implementation kills
  /// the worker (kProtocolError).
  Result<void> receive(Frame frame);
  /// Nothing can be exchanged any more. The worker may still live.
  void end_conversation();
  /// The worker is gone: tells the open calls, then the owner. REQUIRES: the conversation is over.
  void tell_end(WorkerGone gone);

  const boost::asio::any_io_executor& executor() const { return executor_; }
  const Clock& clock() const { return clock_; }
  const LinkOptions& options() const { return options_; }

 private:
  friend class Call;
  Result<void> check_room(std::size_t payload_bytes) const;
  void write_if_usable(FrameType type, std::uint32_t request, std::string_view payload);
  void close_call(std::uint32_t id) { calls_.erase(id); }

  boost::asio::any_io_executor executor_;
  const Clock& clock_;
  const LinkOptions options_;
  Duration hang_after_;
  Timer watch_timer_;
  std::function<void(const WorkerGone&)> on_end_;

  std::map<std::uint32_t, Call*> calls_;
  std::uint32_t next_id_ = 1;
  std::optional<Hello> hello_;
  Heartbeat heartbeat_;
  TimePoint last_sign_of_life_;
  std::optional<TimePoint> stop_deadline_;
  bool conversation_over_ = false;
  std::optional<WorkerGone> gone_;
};

/// Starts a worker. Errors: kNotFound where the program cannot be started; kInternal for
/// descriptors. `on_end` is not called then.
using LinkFactory = std::function<Result<std::shared_ptr<Link>>(
    const boost::asio::any_io_executor& executor, const Clock& clock, const LinkOptions& options,
    std::function<void(const WorkerGone&)> on_end)>;

}  // namespace pensieve::worker
