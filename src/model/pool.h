// The model that lives: loaded when it fits, re-loaded when its worker has ended, given to
// requests.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include "base/clock.h"
#include "base/protection.h"
#include "base/timer.h"
#include "memory/governor.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "model/catalogue.h"
#include "model/cell_budget.h"
#include "model/reconcile.h"
#include "model/worker_trend.h"
#include "worker/link.h"
#include "worker/worker_link.h"

namespace pensieve::model {

/// Why there is no worker to give a request to.
struct LoadFailure {
  enum class Kind : std::uint8_t {
    kNotNow,       // Memory is short at the moment; may pass.
    kInterrupted,  // Somebody else ended the worker while it loaded; another load may succeed.
    kNever,        // Larger than this machine; only other settings help.
    kBroken,       // The file, the engine or the worker program is at fault.
  } kind = Kind::kBroken;
  std::string message;
};

///  kUnloaded ──acquire()──> kLoading ──loaded──> kReady ──unload()──> kUnloading
///      ^                       │ failed, stopped   │ worker ended         │ worker ended
///      └───────────────────────┴───────────────────┴──────────────────────┘
///
/// While kUnloading the worker finishes what it is doing (nothing, unless it hangs) and ends;
/// requests that come meanwhile wait for that and load anew. All arrows are taken by enter().
enum class State : std::uint8_t { kUnloaded, kLoading, kReady, kUnloading };
inline constexpr std::array kStates{State::kUnloaded, State::kLoading, State::kReady,
                                    State::kUnloading};
std::string_view name(State state);  // "unloaded", "loading", "ready", "unloading"

/// One model and its worker. Memory is promised before a worker may load, and given back when the
/// worker is gone: the reservation lives exactly as long as the process that it is for.
///
/// Ownership: borrows clock, monitor and ledger; all must outlive the pool, and the executor must
/// have run dry (or be stopped) before the pool is destroyed.
/// Thread-safety: the executor's single thread only.
class Pool {
 public:
  struct Options {
    ModelFile model;
    std::string worker_program;
    /// The window: what one request may hold. 0: the largest sensible one that could ever fit.
    std::uint32_t context_tokens = 0;
    std::uint32_t sequences_max = 4;
    std::uint32_t threads = 1;
    memory::Floors floors;
    Duration hang_after = std::chrono::seconds(60);
    /// The most that a worker may keep of idle sequences, in RAM (out of what the ledger can spare
    /// at Safe) and on disk.
    Bytes parked_bytes_max;
    Bytes stored_bytes_max;
    std::string prefix_directory;  // For what is kept on disk; empty: nothing is.
    bool debug_log = false;
    /// Where it is remembered what models really took; empty: nowhere.
    std::string estimates_path;
    /// Starts workers; a simulation puts its own here.
    worker::LinkFactory start_worker = worker::WorkerLink::start;
  };

  struct Status {
    State state = State::kUnloaded;
    std::optional<engine::ModelInfo> info;  // Of the last load that succeeded.
    std::uint32_t cells = 0;                // KV cells there are now; 0 where not loaded.
    std::uint32_t cells_max = 0;            // The most that there may ever be; likewise.
    Bytes spare_cells;                      // What the rungs above the used cells take.
    Bytes parked_reserved;                  // Promised for parked states; part of `reserved`.
    worker::Limits limits;                  // As last sent to the worker.
    pid_t pid = 0;                          // Where ready, as are the next four.
    worker::Heartbeat heartbeat;            // Also while unloading: what it still holds.
    Protections protections;                // Of the worker.
    std::uint32_t calls_running = 0;        // Requests of ours that the worker works for.
    Duration idle_for{};                    // Since there were none, to a tick of settle().
    Bytes reserved;
    Reconciler::Status reconciliation;
    std::uint64_t refusals = 0;  // Loads refused for lack of memory, since start.
    memory::Owed owed;           // What requests that run may still take.
    bool leaks = false;          // The worker grows without cause; it is ended when nobody uses it.
    std::uint64_t recycled = 0;  // Workers that were ended for that, since start.
    Duration uptime{};           // Of the worker.
    std::map<worker::WorkerEnd, std::uint64_t> ends;  // How workers have ended so far.
  };

  /// Load options: the window that is chosen where the user names none lies between these two.
  /// Choice: agents need 32k (anthropic-wire.md §2); below 4k no conversation is useful.
  static constexpr std::uint32_t kContextTokensWanted = 32768;
  static constexpr std::uint32_t kContextTokensLeast = 4096;
  /// A load begins with so many KV cells; they double as they are needed (CellBudget).
  static constexpr std::uint32_t kCellsFirst = 4096;
  static constexpr std::uint32_t kStepTokensMax = 512;

  Pool(const boost::asio::any_io_executor& executor, const Clock& clock, memory::Monitor& monitor,
       memory::Ledger& ledger, Options options);
  ~Pool();

  using Acquired = std::expected<std::shared_ptr<worker::Link>, LoadFailure>;

  /// A worker with the model loaded; loads it first where there is none. Requests that come
  /// meanwhile wait for the same load.
  boost::asio::awaitable<Acquired> acquire();

  /// What a request that waits in several goes has seen of loads; see acquire_by().
  struct Wait {
    bool tried = false;  // A load for it, whose outcome is also its own.
  };
  /// The same in goes, for somebody who has to say something meanwhile: nothing where `until`
  /// comes first, and the wait goes on with the next call that gets the same `wait`.
  boost::asio::awaitable<std::optional<Acquired>> acquire_by(TimePoint until, Wait& wait);

  /// Books what the worker has resident now, and ends a worker that leaks once nobody uses it.
  /// Called before each reading of the available memory.
  void settle();

  /// Ends the worker within `grace`.
  void shut_down(Duration grace);

  /// Brings what the worker may use in line with the rung: limits, parked states, KV cells. Called
  /// after each sample and each step of the governor.
  void follow(const memory::Orders& orders);

  // For the governor. `why` goes into the log and, where requests wait, to their clients: "level
  // Critical, 0.75GB available". Each returns whether it has begun something.

  /// Ends the worker cleanly if it is ready and nobody uses it; the next request loads it again.
  bool unload(std::string_view why);
  /// Kills a worker that is loading; the requests that wait for it fail with kNotNow.
  bool stop_load(std::string_view why);
  /// Kills the worker, whatever it is doing: its memory comes back at once.
  bool drop(std::string_view why);

  Status status() const;
  const ModelFile& model() const { return options_.model; }
  std::uint32_t sequences_max() const { return options_.sequences_max; }

 private:
  using Loaded = std::expected<void, LoadFailure>;

  class Waiting;

  void enter(State state);
  boost::asio::awaitable<void> load_and_tell();
  boost::asio::awaitable<Loaded> load();
  boost::asio::awaitable<void> end_failed_worker();
  /// One plan per number of cells, ascending, and the window.
  struct Rungs {
    std::vector<engine::Plan> plans;
    std::uint32_t window = 0;
  };

  boost::asio::awaitable<std::expected<engine::Plan, LoadFailure>> plan(std::uint32_t context,
                                                                        std::uint32_t cells);
  boost::asio::awaitable<std::expected<Rungs, LoadFailure>> plan_rungs();
  /// Which of the planned rungs up to the wanted window can be had; at least one, or why not.
  std::expected<Rungs, LoadFailure> choose_window(std::vector<engine::Plan> plans) const;
  boost::asio::awaitable<Loaded> reserve_and_load(Rungs rungs);
  boost::asio::awaitable<std::expected<worker::Frame, LoadFailure>> answer(worker::Call& call);
  std::expected<void, LoadFailure> reserve(const engine::Plan& first);
  bool fits_ever(const engine::Plan& plan) const;
  bool may_fit_now() const;
  Bytes reserved() const;
  Result<void> on_frame(std::uint64_t generation, const worker::Frame& frame);
  void on_need(const worker::NeedCells& need);
  void on_resized(const worker::Resized& resized);
  void send(worker::FrameType type, std::string_view payload);
  void follow_limits(memory::Rung rung, const memory::Monitor::Status& memory);
  void give_back_parked();
  /// Why no worker should even be started to be asked; empty where one may.
  std::optional<LoadFailure> refusal_before_start();
  LoadFailure too_large(const engine::Plan& plan, const std::string& why,
                        LoadFailure::Kind kind) const;
  engine::LoadOptions load_options(std::uint32_t context, std::uint32_t cells,
                                   std::uint32_t cells_max) const;
  void watch_trend();
  void on_worker_end(std::uint64_t generation, const worker::WorkerGone& gone);

  boost::asio::any_io_executor executor_;
  const Clock& clock_;
  memory::Monitor& monitor_;
  memory::Ledger& ledger_;
  const Options options_;

  State state_ = State::kUnloaded;
  std::shared_ptr<worker::Link> link_;
  std::uint64_t generation_ = 0;      // Which worker; an old one's end must not touch a new one.
  std::optional<CellBudget> budget_;  // What the worker itself takes.
  std::optional<memory::Reservation> parked_;  // For parked states, beside it.
  memory::Rung rung_ = memory::Rung::kNone;    // As last ordered.
  std::optional<worker::Limits> limits_;       // As last sent; empty before that.
  TimePoint limits_at_{};
  bool spilling_ = false;  // The last orders were to spill.
  std::optional<engine::ModelInfo> info_;
  std::optional<LoadFailure> failure_;     // Of the last load.
  std::optional<Bytes> total_at_failure_;  // All the memory there was then.
  std::optional<LoadFailure> stopped_;     // Why the load that is under way was stopped, if it was.
  bool dropped_ = false;                   // This worker was killed to free memory.
  TimePoint used_at_{};                    // When a request was last seen with the worker.
  std::uint64_t refusals_ = 0;
  TimePoint retry_not_before_{};
  Duration backoff_{};
  TimePoint ready_since_{};
  std::map<worker::WorkerEnd, std::uint64_t> ends_;
  Reconciler reconciler_;
  WorkerTrend trend_;        // Of this worker, as is all to the next blank line.
  std::uint64_t given_ = 0;  // How often it was given to a request.
  bool leak_logged_ = false;

  std::uint64_t recycled_ = 0;
  std::list<Timer*> waiting_;  // Of who waits for a change of state, which cancels them all.
};

}  // namespace pensieve::model
