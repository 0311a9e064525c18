// The fakes of clock and memory, for tests in which a worker's threads use them too.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "memory/testing/fake_memory_source.h"

namespace pensieve::worker {

/// Stands still until told to move, as FakeClock does. Thread-safety: any thread.
class SharedClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(since_start_.load())); }
  void advance(Duration by) { since_start_ += by.count(); }

 private:
  std::atomic<Duration::rep> since_start_ = 0;
};

/// A FakeMemorySource behind a lock. Thread-safety: any thread.
class SharedMemorySource final : public memory::MemorySource {
 public:
  void set_available(Bytes available) {
    const std::lock_guard lock(mutex_);
    fake_.set_available(available);
  }
  void fail(std::string why) {
    const std::lock_guard lock(mutex_);
    fake_.fail(std::move(why));
  }
  Result<memory::Reading> read() override {
    const std::lock_guard lock(mutex_);
    return fake_.read();
  }

 private:
  std::mutex mutex_;
  memory::FakeMemorySource fake_;
};

}  // namespace pensieve::worker
