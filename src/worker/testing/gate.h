#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/clock.h"

namespace pensieve::worker {

/// Stands in for time that passes inside an engine: pass() returns at once, or, while the gate is
/// closed, when it opens. So a test holds an engine in the middle of a step for as long as it
/// likes. Thread-safety: any thread.
class Gate {
 public:
  void pass(Duration) {
    std::unique_lock lock(mutex_);
    if (!closed_) return;
    ++inside_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !closed_; });
    --inside_;
  }

  void close() { set(true); }
  void open() { set(false); }

  /// Whether somebody stands before the closed gate; waits for it.
  bool holds_somebody() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return inside_ > 0; });
  }

 private:
  void set(bool closed) {
    const std::lock_guard lock(mutex_);
    closed_ = closed;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  int inside_ = 0;
};

}  // namespace pensieve::worker
