// Message batches on disk: what was asked, what has come of it, and where each batch stands, so
// that a server that starts again goes on where the last one ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/batches.h"
#include "base/clock.h"
#include "base/error.h"

namespace pensieve::gateway {

struct BatchRecord {
  std::string id;
  std::uint64_t order = 0;  // Of creation; ids say nothing of it.
  std::string owner;        // The name of the key that created it; empty where there are no keys.
  WallTime created_at;
  WallTime expires_at;
  std::optional<WallTime> cancel_initiated_at;
  std::optional<WallTime> ended_at;
  std::uint32_t requests = 0;
  api::BatchTally tally{};  // Of the results so far.
  std::vector<bool> done;   // Which requests have a result; empty once it has ended.
  std::uint64_t bytes = 0;  // Of its files.
};

/// The folder of batches. Each has a folder of its own, named by its id:
///
///   requests.jsonl  one request a line, never changed
///   results.jsonl   "INDEX RESULT" a line, in the order in which they came; only appended to
///   batch.json      the rest; replaced as a whole
///
/// A batch appears and vanishes by one rename. What a killed server leaves is whole but for the
/// last line of the results, which is cut off where it is torn: that request runs again. What
/// clients have been told survives a loss of power as well: that a batch is there, that it was
/// canceled, that it has ended, and with that all of its results. Results of a batch that has not
/// ended are forced to the disk with its end; until then the last ones may be torn off.
///
/// Ownership: holds the folder's lock; a second server that wants the same folder has no batches.
/// Thread-safety: the io thread only, but for Change::write; other calls read and write files
/// without waiting for the disk. Errors: kUnavailable with the file and what the system says;
/// nothing has changed then.
class BatchStore {
 public:
  /// What has to be forced to the disk: first `write`, which may take long and runs on any thread,
  /// then, where it succeeds, `commit` on the io thread. One at a time for a batch.
  struct Change {
    std::function<Result<void>()> write;
    std::function<void()> commit;
  };

  static constexpr std::size_t kBatchesMax = 1000;
  /// Of all files together; a result that would pass it becomes an error.
  static constexpr std::uint64_t kBytesMax = std::uint64_t{1} << 30;
  /// A named key may have one such part of both, so that none uses up the room of all others.
  static constexpr std::size_t kOwnersPart = 2;

  /// Makes the folder where it is missing. Errors: it cannot be used, or another server does.
  static Result<std::unique_ptr<BatchStore>> open(const std::string& folder);
  ~BatchStore();
  BatchStore(const BatchStore&) = delete;
  BatchStore& operator=(const BatchStore&) = delete;

  /// The oldest first.
  const std::vector<BatchRecord>& batches() const { return batches_; }
  const BatchRecord* find(std::string_view id) const;
  std::uint64_t bytes() const;
  /// Whether so many more batches, with so many bytes of requests in all, may be created.
  bool has_room(std::string_view owner, std::size_t batches, std::uint64_t request_bytes) const;

  struct Creation {
    std::shared_ptr<const BatchRecord> record;  // Its bytes are known once it is written.
    Change change;
  };
  /// `record` without id, order, requests and bytes, which are set here. `requests` must live until
  /// it is written.
  Creation create(BatchRecord record, const std::vector<api::BatchRequest>& requests);
  /// From then on it is canceling. REQUIRES, as the next ones do: find(id).
  Change cancel(std::string_view id, WallTime now);
  Change end(std::string_view id, WallTime now);
  Change remove(std::string_view id);

  /// The requests without a result, ascending. REQUIRES: it has not ended.
  std::vector<std::uint32_t> unfinished(std::string_view id) const;
  Result<api::BatchRequest> request(std::string_view id, std::uint32_t index) const;
  /// REQUIRES: there is no result for `index` yet. `line` as api/batches.h makes it.
  Result<void> append(std::string_view id, std::uint32_t index, std::string_view line);
  /// Where the results lie, each line with kIndexBytes in front.
  std::filesystem::path results_path(std::string_view id) const;
  static constexpr std::size_t kIndexBytes = 9;  // Eight digits and a space.

 private:
  explicit BatchStore(std::filesystem::path folder, int lock)
      : folder_(std::move(folder)), lock_(lock) {}

  struct Offsets {
    std::string id;
    std::vector<std::uint64_t> starts;  // Of each line, and the end.
  };

  void load();
  Result<BatchRecord> read(const std::filesystem::path& folder) const;
  Result<void> read_results(const std::filesystem::path& folder, BatchRecord& record) const;
  /// Writes the changed record and then keeps it.
  Change replace(BatchRecord changed);
  BatchRecord& at(std::string_view id);
  std::filesystem::path folder_of(std::string_view id) const;

  const std::filesystem::path folder_;
  const int lock_;  // A descriptor.
  std::vector<BatchRecord> batches_;
  std::uint64_t last_order_ = 0;
  mutable Offsets offsets_;  // Of the batch that request() was asked for last.
};

/// The results as a client reads them: without the indexes, in pieces of at most kPieceBytes.
class ResultsFile {
 public:
  static constexpr std::size_t kPieceBytes = 64U << 10;

  explicit ResultsFile(const std::filesystem::path& path) : file_(path, std::ios::binary) {}

  bool usable() const { return file_.is_open(); }
  /// Empty at the end.
  std::string next();

 private:
  std::ifstream file_;
  std::size_t to_skip_ = BatchStore::kIndexBytes;  // Of the line that comes.
};

}  // namespace pensieve::gateway
