// What keys have used of the day, in a file, so that a restart gives nobody a new budget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "gateway/disk_thread.h"
#include "gateway/key_limits.h"

namespace pensieve::gateway {

/// Reads the file once, and replaces it as a whole while something is spent, at most every
/// kSaveEvery: what a server that is killed had counted since is lost. A file that cannot be read
/// is ignored, and one that cannot be written stays as it is, both with a line in the log: nobody
/// is refused for a disk.
///
/// It has the names of keys, a day and numbers; nothing of the keys themselves.
///
/// Ownership: borrows all. Thread-safety: the io thread only.
class KeyUseFile {
 public:
  static constexpr Duration kSaveEvery = std::chrono::seconds(10);
  static constexpr std::size_t kFileBytesMax = 256U << 10;

  KeyUseFile(std::string path, KeyLimits& limits, const boost::asio::any_io_executor& executor,
             DiskThread& disk, const Clock& clock);

  /// Begins to save where something was spent and the last time is long enough ago.
  void tick();
  /// Begins to save what is not saved yet, whenever that was.
  void save();

 private:
  void read();
  boost::asio::awaitable<void> write();

  const std::string path_;
  KeyLimits& limits_;
  const boost::asio::any_io_executor executor_;
  DiskThread& disk_;
  const Clock& clock_;
  std::uint64_t saved_ = 0;  // KeyLimits::spendings() that the file has.
  TimePoint saved_at_;       // When that was begun.
  bool saving_ = false;
  bool again_ = false;  // Somebody wanted to save meanwhile.
  bool unwritable_ = false;
};

}  // namespace pensieve::gateway
