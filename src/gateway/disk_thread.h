// A thread beside the io thread for what waits for a disk: forcing files onto it takes as long as
// the disk likes.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>

#include "base/error.h"

namespace pensieve::gateway {

/// Does one piece of work after another, in the order of the calls. What waits for it is bounded by
/// who calls: a request, a batch and the file of limits each have one piece under way at most.
///
/// Ownership: the destructor waits for what is under way. Whoever lets the io context run dry
/// before waits there, with a bound of his own: it has work as long as a piece is under way.
/// Thread-safety: the io thread only; the work itself runs on the other one and touches nothing
/// that the io thread changes.
class DiskThread {
 public:
  /// `executor` is that of the io thread.
  explicit DiskThread(const boost::asio::any_io_executor& executor)
      : executor_(executor), thread_(1) {}
  ~DiskThread() { thread_.join(); }
  DiskThread(const DiskThread&) = delete;
  DiskThread& operator=(const DiskThread&) = delete;

  /// Comes back on the io thread once the work is done.
  boost::asio::awaitable<Result<void>> run(std::function<Result<void>()> work);

 private:
  const boost::asio::any_io_executor executor_;
  boost::asio::thread_pool thread_;
};

// For the work. Errors: kUnavailable with the file and what the system says.

/// Makes or replaces the file, and forces its bytes onto the disk.
Result<void> write_durably(const std::string& path, std::string_view bytes);
/// Forces onto the disk what was written to the file, or which names a folder has.
Result<void> sync_path(const std::string& path);
/// Puts the file into the place of `path` as a whole: a reader, a crash or a loss of power meets
/// the old file or the new one.
Result<void> replace_durably(const std::string& path, std::string_view bytes);

}  // namespace pensieve::gateway
