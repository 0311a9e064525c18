// Message batches: requests that may take a day, run through the same path as POST /v1/messages in
// the time that nobody else wants.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "api/batches.h"
#include "api/error.h"
#include "api/messages.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "gateway/batch_store.h"
#include "gateway/buffer_account.h"
#include "gateway/disk_thread.h"
#include "gateway/traffic.h"
#include "memory/monitor.h"
#include "model/pool.h"

namespace pensieve::gateway {

class MessageRelay;

/// How many requests of batches may run beside `interactive` others on a model that runs `places`
/// at once: none below Safe; one place always stays free for who comes next, and while anybody is
/// answered a batch gets one place only, because each further one slows down every token.
std::uint32_t batch_lanes(memory::Level level, std::uint32_t places, std::uint32_t interactive);

/// Runs batches in the order of their creation. A request that is running when its place is wanted,
/// when memory is not Safe any more or when the server ends goes back to the queue; nothing of it
/// is lost but time. One that ends with 503 or 529 is tried again later, kTriesMax times in all;
/// any other error is its result.
///
/// Ownership: borrows all but the store. Thread-safety: the io thread only.
class Batches {
 public:
  /// As Anthropic's API has it.
  static constexpr std::chrono::seconds kExpireAfter = std::chrono::hours(24);
  /// How long a batch and its results are kept after its creation; also as there.
  static constexpr std::chrono::seconds kKeepFor = std::chrono::days(29);
  static constexpr unsigned kTriesMax = 8;

  struct Seams {
    boost::asio::any_io_executor executor;
    DiskThread& disk;
    model::Pool& pool;
    memory::Monitor& monitor;
    BufferAccount& buffers;
    const Clock& clock;
    std::function<WallTime()> wall;
    Traffic& traffic;
    /// Requests that somebody waits for.
    std::function<std::uint32_t()> interactive;
    /// Of an owner's day, none for one that is not known; and what a request has taken of it.
    std::function<bool(std::string_view owner)> has_tokens;
    std::function<void(std::string_view owner, std::uint64_t tokens)> spend;
    std::function<std::expected<void, api::ApiError>(std::string_view)> check_model;
  };

  Batches(std::unique_ptr<BatchStore> store, Seams seams);
  ~Batches();
  Batches(const Batches&) = delete;
  Batches& operator=(const Batches&) = delete;

  /// Starts what may start, takes back what may not run any more, ends what is over. Called after
  /// each sample of the memory, before memory pressure is acted on.
  void tick();
  /// Takes everything back and starts nothing any more.
  void stop();
  std::size_t running() const { return lanes_.size(); }

  /// Of the batches that are kept, of all owners.
  struct Status {
    std::uint64_t in_progress = 0;
    std::uint64_t canceling = 0;
    std::uint64_t ended = 0;
    std::uint64_t running = 0;     // Requests, as the next two.
    std::uint64_t unfinished = 0;  // Without a result; those that run included.
    std::array<std::uint64_t, std::tuple_size_v<api::BatchTally>> results{};  // By result.
    Bytes stored;
  };
  Status status() const;

  /// Who asks, and what the URL of results begins with: "http://127.0.0.1:7777".
  struct Asker {
    std::string owner;
    std::string base_url;
  };
  using Answer = std::expected<std::string, api::ApiError>;
  using LaterAnswer = boost::asio::awaitable<Answer>;
  Answer list(std::string_view query, const Asker& asker) const;
  Answer retrieve(std::string_view id, const Asker& asker) const;
  // What these say is on the disk by then. The arguments must live as long.
  LaterAnswer create(const std::vector<api::BatchRequest>& requests, const Asker& asker);
  LaterAnswer cancel(const std::string& id, const Asker& asker);
  LaterAnswer remove(const std::string& id, const Asker& asker);
  /// The file with the results of a batch that has ended, each line with an index in front.
  std::expected<std::filesystem::path, api::ApiError> results(std::string_view id,
                                                              const Asker& asker) const;

 private:
  struct Lane {
    std::uint32_t index = 0;
    std::string custom_id;
    MessageRelay* relay = nullptr;  // While it runs.
    bool taken_back = false;
  };
  using Lanes = std::list<Lane>;

  /// The batch whose requests run now.
  struct Front {
    std::string id;
    std::vector<std::uint32_t> queue;  // The next one last.
    std::map<std::uint32_t, unsigned> tries;
  };
  /// A batch that was canceled or has expired, while what did not run gets its result.
  struct Closing {
    std::string id;
    api::BatchResult result = api::BatchResult::kCanceled;
    std::vector<std::uint32_t> queue;
  };

  /// Canceled or expired: nothing of it is started any more.
  bool is_over(const BatchRecord& record) const;
  void close_some();
  boost::asio::awaitable<Result<void>> apply(BatchStore::Change change);
  /// The same for a batch, which nothing else changes meanwhile.
  boost::asio::awaitable<Result<void>> apply_to(std::string id, BatchStore::Change change);
  bool is_changing(std::string_view id) const { return changing_.contains(id); }
  /// All of it has a result: says so, once the results are on the disk.
  void begin_end(const std::string& id);
  /// Removes the oldest one whose time is over. One at a time: each is a wait for the disk.
  void forget_one();
  /// A change that nobody waits for; where it fails, it is tried again later.
  void begin(const std::string& id, BatchStore::Change change);
  boost::asio::awaitable<void> finish(std::string id, BatchStore::Change change);
  void choose_closing();
  void take_back(Lane& lane);
  /// Whether one more may be tried at once.
  bool start_next();
  bool choose_front();
  void start(std::uint32_t index, api::BatchRequest request);
  boost::asio::awaitable<void> run(Lanes::iterator lane, api::MessagesRequest request,
                                   BufferCharge charge);
  void settle(Lanes::iterator lane, const std::optional<api::ApiError>& error,
              std::string_view message, std::string_view request_id);
  /// Appends the result, or puts the request back where that fails.
  bool keep_result(std::string_view id, std::uint32_t index, const std::string& line);
  void pause(Duration duration);
  const BatchRecord* find(std::string_view id, const Asker& asker) const;
  std::string body(const BatchRecord& record, const Asker& asker) const;

  const std::unique_ptr<BatchStore> store_;
  const Seams seams_;
  Lanes lanes_;  // The newest last.
  std::optional<Front> front_;
  std::optional<Closing> closing_;
  std::set<std::string, std::less<>> changing_;  // Batches that are being written.
  std::size_t creating_ = 0;                     // Batches that are not there yet, as the next one.
  std::uint64_t creating_bytes_ = 0;
  TimePoint not_before_{};
  bool stopped_ = false;
};

}  // namespace pensieve::gateway
