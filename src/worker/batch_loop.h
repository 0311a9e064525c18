// The one loop that drives an engine: sequences join and leave at every step, prompts are
// processed in chunks between the others' tokens, and the KV of ended requests stays for re-use.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "worker/cell_demand.h"
#include "worker/chunk_size.h"
#include "worker/embed_messages.h"
#include "worker/messages.h"
#include "worker/sequences.h"
#include "worker/step_plan.h"

namespace pensieve::worker {

/// What the loop reports. Called from the loop's thread only. Each job gets accepted() and then
/// exactly one of done(), failed(), refused(), or refused() or failed() alone, or nothing more
/// after it was cancelled; it is not accepted() before there are cells for its prompt; ended()
/// follows in every case, after the engine's cache was cleared.
class JobEvents {
 public:
  virtual ~JobEvents() = default;

  /// The second memory check, right before generation. `free_memory` drops what can be dropped
  /// (the engine's cache and the KV of no running request); used at Emergency, before refusing.
  virtual std::optional<Refused> check_memory(const std::function<void()>& free_memory) = 0;

  virtual void accepted(std::uint32_t id, const Accepted& accepted) = 0;
  virtual void started(std::uint32_t id, const Started& started) = 0;
  virtual void said(std::uint32_t id, const engine::AnswerPiece& piece) = 0;
  virtual void done(std::uint32_t id, const Done& done) = 0;
  /// In place of done(), for an input that was to be embedded; it is neither accepted nor started.
  virtual void embedded(std::uint32_t id, const Embedded& embedded) = 0;
  virtual void failed(std::uint32_t id, const Failed& failed) = 0;
  virtual void refused(std::uint32_t id, const Refused& refused) = 0;
  virtual void cleared(std::uint32_t id, const Cleared& cleared) = 0;
  virtual void need_cells(const NeedCells& need) = 0;
  virtual void resized(const Resized& resized) = 0;
  virtual void ended(std::uint32_t id) = 0;

  /// How many requests run or wait has changed; stats() has the figures.
  virtual void load_changed() = 0;
};

/// One input to be embedded, tokenised; it fits the window.
struct EmbedJob {
  std::uint32_t id = 0;
  std::vector<engine::Token> tokens;  // At least one.
};

/// Continuous batching over one engine.
///
/// The KV cache may be smaller than the window, and grows and shrinks between two steps as the
/// gateway grants (resize()). Where cells are short the loop asks for more, up to `cells_max`, and
/// goes on with what fits. A running request is never lost while others have cells to give: idle
/// sequences are forgotten first, least recently used first; then the newest running request gives
/// up its cells, waits, and goes on where it was once there is room (its client sees a pause, not
/// an error). A request that cannot go on even alone is refused after CellDemand::kCellsWaitMax.
///
/// Ownership: borrows engine, events and clock; all must outlive the loop.
/// Thread-safety: run() in one thread; the commands, stop() and stats() from any. Bounds: at most
/// `waiting_max` jobs wait; submit() says so.
/// Errors: engine errors of kOutOfMemory are handled here; an engine error that is not about one
/// request ends run() with that error, and the process has to end.
class BatchLoop {
 public:
  struct Options {
    std::uint32_t sequences_max = 4;
    std::uint32_t context_tokens = 0;  // The window of one request. REQUIRES: > 0.
    /// Most cells to ask for. Not more than there are: never asks, and a request that fills them
    /// ends as one that fills its window.
    std::uint32_t cells_max = 0;
    std::uint32_t step_tokens_max = 256;
    std::uint32_t waiting_max = 256;
  };

  struct Stats {
    std::uint32_t running = 0;
    std::uint32_t waiting = 0;
    std::uint32_t cached_tokens = 0;
    std::uint32_t cells = 0;
    std::uint32_t cells_used = 0;
    bool busy = false;         // Inside a step or with work to do.
    bool is_restless = false;  // Idle sequences are to be kept elsewhere as time passes.
    bool lacks_cells = false;  // Work is there, and all of it waits for cells.
  };

  /// `store` and `exchange` keep what leaves the KV cache; null: it is computed again.
  BatchLoop(engine::Engine& engine, JobEvents& events, const Clock& clock, const Options& options,
            PrefixStore* store = nullptr, PrefixExchange* exchange = nullptr);
  BatchLoop(const BatchLoop&) = delete;
  BatchLoop& operator=(const BatchLoop&) = delete;

  /// Errors: kUnavailable when waiting_max jobs wait already; nothing has changed then.
  Result<void> submit(Job job);

  /// One input in each turn, in their order; the events are embedded(), failed() or refused(), then
  /// ended(). Errors: as submit(), and both kinds wait within the same bound.
  Result<void> embed(EmbedJob job);

  /// The job gets no further event but ended(). Unknown ids are ignored: it may just have ended.
  void cancel(std::uint32_t id);

  /// Drops the KV of all idle sequences and what is parked, and clears the engine's cache; answers
  /// by cleared(id). `stored_too`: and removes what is on disk.
  void clear_cache(std::uint32_t id, bool stored_too = false);

  /// The cells shall be `cells`: more are granted, fewer are ordered. Done before the next step, as
  /// far as running requests allow; answers by resized(), once for each call.
  void resize(std::uint32_t cells);
  /// No to need_cells().
  void refuse_cells(ResizeRefused refusal);
  /// From the next step on. Running requests beyond sequences_max go on.
  void set_limits(const Limits& limits);
  /// Time has passed: to be called about once a second. Only a loop that waits for cells cares.
  void look_again();
  /// Something has come that a request waits for.
  void wake();
  /// After run() has ended, from any one thread: Sequences::store_one().
  bool store_one() { return sequences_.store_one(); }

  void stop();
  Stats stats() const;

  /// Works until stop(). One turn is one step().
  Result<void> run();

  /// One turn: commands, admission, one engine step. Returns false when there is nothing to do.
  /// For run() and for tests that drive the loop themselves.
  Result<bool> turn();

 private:
  struct Commands {
    std::deque<Job> jobs;
    std::deque<EmbedJob> embeds;
    std::vector<std::uint32_t> cancels;
    std::vector<std::pair<std::uint32_t, bool>> clears;  // And whether the disk too.
    std::vector<std::uint32_t> resizes;
    std::optional<ResizeRefused> refusal;  // The last.
    std::optional<Limits> limits;          // The last.
    bool look_again = false;
    bool empty() const {
      return jobs.empty() && embeds.empty() && cancels.empty() && clears.empty() &&
             resizes.empty() && !refusal && !limits && !look_again;
    }
  };
  template <class Change>
  void command(const Change& change);

  Result<void> take_commands();
  void apply_cancel(std::uint32_t id);
  void accept(Job job);
  void announce_accepted();
  void start_waiting();
  std::uint32_t running_max() const {
    return std::clamp(limits_.sequences_max, 1U, options_.sequences_max);
  }
  bool fits_beside_running(const Running& next);
  void start(std::unique_ptr<Running> running);

  Result<bool> step();
  StepPlan plan_step();
  Result<bool> end_step(const StepPlan& plan, const Error& error);
  bool make_room(Sequence& member);
  void take_sampled(Sequence& sequence, engine::Token token);
  void end_with(Sequence& sequence, StopCause cause);
  void leave(Sequence& sequence);
  void after_request(std::uint32_t id);
  /// Lets go of all idle sequences, and gives the engine's buffers back where nothing runs.
  Cleared free_memory(bool stored_too);
  void publish_stats(bool lacks_cells);

  // Embeddings: batch_loop_embed.cc.
  Result<bool> embed_next();
  bool cancel_embed(std::uint32_t id);

  // Cells: batch_loop_cells.cc.
  bool may_grow() const { return engine_.cells() < options_.cells_max; }
  bool is_too_large(const Running& running) const;
  std::uint32_t room_to_grow() const;
  std::uint64_t cells_wanted();
  void ask_for_cells();
  void end_starved();
  Refused starved(const Running& running) const;
  Result<void> apply_resizes(const std::vector<std::uint32_t>& resizes);
  Result<Resized> change_cells(std::uint32_t cells);
  std::uint32_t smallest_cells(std::uint32_t asked);

  engine::Engine& engine_;
  PrefixStore* const store_;
  JobEvents& events_;
  const Clock& clock_;
  const Options options_;
  ChunkSize chunk_size_;
  Limits limits_;
  CellDemand demand_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Commands commands_;  // Guarded by mutex_, as are the next two.
  Stats stats_;
  bool stopping_ = false;

  // The loop's thread only, from here on.
  Sequences sequences_;
  std::deque<std::unique_ptr<Running>> waiting_;
  std::deque<EmbedJob> embeds_;
  std::uint64_t counter_ = 0;
  bool image_is_next_ = true;                               // Pictures and other steps take turns.
  std::pair<std::uint32_t, std::uint32_t> published_load_;  // Running, waiting.
};

}  // namespace pensieve::worker
