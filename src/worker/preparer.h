// Requests between the socket and the batch loop: tokenised, and their schemas compiled, in a
// thread of their own, so that nothing that takes seconds holds up the thread that reads frames.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "worker/batch_loop.h"

namespace pensieve::worker {

/// Requests are prepared one after the other and submitted to the loop in their order. A request
/// that fails here ends by `failed`; one that is cancelled here says nothing more.
///
/// Ownership: borrows all it is made with. Thread-safety: run() has a thread of its own, and calls
/// `failed` there; the rest may be called from any thread.
class Preparer {
 public:
  /// Most requests that wait here.
  static constexpr std::size_t kPreparingMax = 256;
  /// Most bytes of their payloads together, except that one may always wait. Choice: the plan's
  /// share for the program has as much to spare.
  static constexpr Bytes kPreparingBytesMax = 8_MiB;
  /// One request that takes longer than this hangs. Choice: several times what the longest prompt
  /// and the slowest schemas may take.
  static constexpr Duration kPrepareMax = std::chrono::seconds(20);

  using OnFailed = std::function<void(std::uint32_t id, const Error& error)>;

  Preparer(const engine::Engine& engine, BatchLoop& loop, const Clock& clock,
           std::uint32_t context_tokens, OnFailed failed)
      : engine_(engine),
        loop_(loop),
        clock_(clock),
        context_tokens_(context_tokens),
        failed_(std::move(failed)) {}

  /// Whether a payload of so many bytes may be added; waits for that, at most for `wait`.
  bool wait_for_room(std::size_t bytes, Duration wait);
  /// `payload` is that of kGenerate. REQUIRES: wait_for_room() has just said so.
  /// Errors: kUnavailable beyond kPreparingMax; nothing has changed then.
  Result<void> add(std::uint32_t id, std::string payload);
  /// Here or, where it has left, in the loop.
  void cancel(std::uint32_t id);
  /// Ends run() after the request that it prepares; those that wait are forgotten.
  void stop();

  /// Prepares until stop().
  void run();

  /// Requests that are here.
  std::uint32_t count() const;
  /// Whether one has been prepared for longer than kPrepareMax.
  bool hangs() const;

 private:
  struct Request {
    std::uint32_t id = 0;
    std::string payload;
  };

  bool has_room(std::size_t bytes) const;
  std::optional<Request> next();
  Result<Job> prepared(const Request& request) const;
  void finish(std::uint32_t id, Result<Job> job);

  const engine::Engine& engine_;
  BatchLoop& loop_;
  const Clock& clock_;
  const std::uint32_t context_tokens_;
  const OnFailed failed_;

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<Request> waiting_;
  std::size_t waiting_bytes_ = 0;
  std::optional<std::uint32_t> preparing_;
  TimePoint since_{};
  bool is_cancelled_ = false;  // What is being prepared.
  bool stopping_ = false;
};

}  // namespace pensieve::worker
