// How many threads the next step computes with, so that none of them has to share its core.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace pensieve::engine {

/// Two readings tell how the cores that this process may use were spent between them.
struct CoreTimes {
  TimePoint at;
  Duration idle;  // Of these cores together, since some fixed point.
  Duration own;   // Processor time of this process, since some fixed point.
};

/// When a reading is made. One before a step ends a pause, one after it ends a time of steps.
enum class ReadingTime : std::uint8_t { kBeforeStep, kAfterStep };

enum class StepKind : std::uint8_t { kDecode, kPrompt };

/// Follows the cores that nobody else uses: idle ones and those this process keeps busy.
///
/// The threads of a step meet hundreds of times a token and wait for each other spinning, so one
/// that shares its core holds up all: decoding with two threads on two cores drops to a tenth when
/// another program takes one core, and with one thread it does not notice. So threads leave at the
/// first reading that shows others on their cores, and come back once there was room for them for
/// a while: 250 ms, and twice as long, up to 4 s, after each return that did not last. Trying a
/// step with more threads instead would tell the same, but such a step can take seconds.
///
/// Prompts are processed in larger pieces, lose less to a shared core and more to a missing
/// thread, so they give way only to programs that take about a whole core.
///
/// Where readings are not to be had, it stays at the maximum. Pure arithmetic on readings that the
/// caller made. Not thread-safe.
class ThreadCount {
 public:
  /// Choice: a shared core is noticed within about one slow step. The readings cost nothing
  /// measurable then, and the kernel's idle times, in units of 10 ms, still say enough.
  static constexpr Duration kInterval = std::chrono::milliseconds(100);
  /// Choices: a short pause of a build is no reason to return; a user who waits for speed to
  /// come back after it waits for at most 5 s.
  static constexpr Duration kHoldMin = std::chrono::milliseconds(250);
  static constexpr Duration kHoldMax = std::chrono::seconds(4);
  /// A return that lasted this long was right. Twice the longest hold, so that what comes and goes
  /// more often than that is met with the longest hold.
  static constexpr Duration kLasting = std::chrono::seconds(8);

  explicit ThreadCount(std::uint32_t threads_max)
      : threads_max_(std::max(threads_max, 1U)),
        decode_(threads_max_, kDecodeShare),
        prompt_(threads_max_, kPromptShare) {}

  std::uint32_t threads(StepKind kind) const {
    return kind == StepKind::kDecode ? decode_.threads() : prompt_.threads();
  }

  /// Whether observe() should be given a reading now. Asked before and after each step: then what
  /// is wanted before one follows a pause of at least kInterval.
  bool wants_reading(ReadingTime time, TimePoint now) const {
    if (threads_max_ == 1) return false;
    return !last_ || now - last_->at >= (time == ReadingTime::kAfterStep ? 1 : 2) * kInterval;
  }

  /// What others used during a pause may be over with it, so no thread leaves for that; for room
  /// there was during a pause, threads do come back. Without a reading, it starts anew at the
  /// maximum.
  void observe(ReadingTime time, const std::optional<CoreTimes>& reading) {
    if (!reading) {
      *this = ThreadCount(threads_max_);
      return;
    }
    const std::optional<CoreTimes> before = std::exchange(last_, reading);
    if (!before || reading->at <= before->at) return;
    // The kernel's time of cores that wait for a disk may run backwards a little.
    const Duration idle = std::max(reading->idle - before->idle, Duration(0));
    const Duration own = std::max(reading->own - before->own, Duration(0));
    const double cores = std::chrono::duration<double>(idle + own) /
                         std::chrono::duration<double>(reading->at - before->at);
    const bool may_leave = time == ReadingTime::kAfterStep;
    decode_.observe(cores, may_leave, before->at, reading->at);
    prompt_.observe(cores, may_leave, before->at, reading->at);
  }

 private:
  /// How much of the last thread's core others may use: `leave` or more and the thread leaves,
  /// less than `come` and it may come back.
  struct Share {
    double leave;
    double come;
  };
  /// With two threads on two cores, decoding loses nine tenths of its speed while one is shared
  /// with a program that computes, and an eighth without the second thread: worth it up to a
  /// sixth of the time. What others are seen to use while they share is about half of what they
  /// would use alone. The gateway and its clients are others, too, but what they do fits between
  /// two steps.
  static constexpr Share kDecodeShare{.leave = 0.3, .come = 0.2};
  /// A whole program on one of two cores is seen to use a half or two thirds of it.
  static constexpr Share kPromptShare{.leave = 0.45, .come = 0.35};

  /// The number of threads of one kind of step.
  class Level {
   public:
    Level(std::uint32_t threads_max, Share share)
        : threads_max_(threads_max), share_(share), threads_(threads_max) {}

    std::uint32_t threads() const { return threads_; }

    /// From `began` to `ended`, `cores` were idle or ours.
    void observe(double cores, bool may_leave, TimePoint began, TimePoint ended) {
      if (const std::uint32_t left = whole(cores + share_.leave); may_leave && left < threads_) {
        leave(left, ended);
        return;
      }
      const std::uint32_t fitting = whole(cores + share_.come);
      if (fitting <= threads_) {
        room_.reset();
        return;
      }
      if (!room_) room_ = Room{began, fitting};
      room_->threads = std::min(room_->threads, fitting);
      if (ended - room_->since < hold_) return;
      threads_ = room_->threads;
      came_back_ = ended;
      room_.reset();
    }

   private:
    struct Room {
      TimePoint since;
      std::uint32_t threads;  // The least there was room for since then.
    };

    void leave(std::uint32_t threads, TimePoint now) {
      threads_ = threads;
      room_.reset();
      if (!came_back_) return;
      hold_ = now - *came_back_ < kLasting ? std::min(hold_ * 2, kHoldMax) : kHoldMin;
      came_back_.reset();
    }

    std::uint32_t whole(double cores) const {
      return static_cast<std::uint32_t>(
          std::clamp(std::floor(cores), 1.0, static_cast<double>(threads_max_)));
    }

    std::uint32_t threads_max_;
    Share share_;
    std::uint32_t threads_;
    Duration hold_ = kHoldMin;
    std::optional<Room> room_;
    std::optional<TimePoint> came_back_;
  };

  std::uint32_t threads_max_;
  Level decode_;
  Level prompt_;
  std::optional<CoreTimes> last_;
};

}  // namespace pensieve::engine
