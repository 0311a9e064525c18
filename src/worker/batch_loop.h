// The one loop that drives an engine: sequences join and leave at every step, prompts are
// processed in chunks between the others' tokens, and the KV of ended requests stays for re-use.
#pragma once

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
#include "worker/chunk_size.h"
#include "worker/messages.h"
#include "worker/text_filter.h"

namespace pensieve::worker {

/// A request whose prompt is tokenised and fits the window.
struct Job {
  std::uint32_t id = 0;
  std::vector<engine::Token> prompt;  // At least one token.
  std::uint32_t output_tokens_max = 1;
  std::vector<std::string> stop_sequences;
  engine::Sampling sampling;
};

/// What the loop reports. Called from the loop's thread only. Each job gets accepted() and then
/// exactly one of done(), failed(), refused(), or refused() or failed() alone, or nothing more
/// after it was cancelled; ended() follows in every case, after the engine's cache was cleared.
class JobEvents {
 public:
  virtual ~JobEvents() = default;

  /// The second memory check, right before generation. `free_memory` drops what can be dropped
  /// (the engine's cache and the KV of no running request); used at Emergency, before refusing.
  virtual std::optional<Refused> check_memory(const std::function<void()>& free_memory) = 0;

  virtual void accepted(std::uint32_t id, const Accepted& accepted) = 0;
  virtual void started(std::uint32_t id, const Started& started) = 0;
  virtual void text(std::uint32_t id, std::string_view text) = 0;
  virtual void done(std::uint32_t id, const Done& done) = 0;
  virtual void failed(std::uint32_t id, const Failed& failed) = 0;
  virtual void refused(std::uint32_t id, const Refused& refused) = 0;
  virtual void cleared(std::uint32_t id, const Cleared& cleared) = 0;
  virtual void ended(std::uint32_t id) = 0;

  /// How many requests run or wait has changed; stats() has the figures.
  virtual void load_changed() = 0;
};

/// Continuous batching over one engine.
///
/// A running request is never lost for lack of KV cells: idle sequences are forgotten first, least
/// recently used first; then the newest running request gives up its cells, waits, and goes on
/// where it was once there is room (its client sees a pause, not an error).
///
/// Ownership: borrows engine, events and clock; all must outlive the loop.
/// Thread-safety: run() in one thread; submit(), cancel(), clear_cache(), stop() and stats() from
/// any. Bounds: at most `waiting_max` jobs wait; submit() says so.
/// Errors: engine errors of kOutOfMemory are handled here; an engine error that is not about one
/// request ends run() with that error, and the process has to end.
class BatchLoop {
 public:
  struct Options {
    std::uint32_t sequences_max = 4;
    std::uint32_t context_tokens = 0;  // The engine's window. REQUIRES: > 0.
    std::uint32_t step_tokens_max = 256;
    std::uint32_t waiting_max = 256;
  };

  struct Stats {
    std::uint32_t running = 0;
    std::uint32_t waiting = 0;
    std::uint32_t cached_tokens = 0;
    bool busy = false;  // Inside a step or with work to do.
  };

  BatchLoop(engine::Engine& engine, JobEvents& events, const Clock& clock, const Options& options);
  BatchLoop(const BatchLoop&) = delete;
  BatchLoop& operator=(const BatchLoop&) = delete;

  /// Errors: kUnavailable when waiting_max jobs wait already; nothing has changed then.
  Result<void> submit(Job job);

  /// The job gets no further event but ended(). Unknown ids are ignored: it may just have ended.
  void cancel(std::uint32_t id);

  /// Drops the KV of all idle sequences and clears the engine's cache; answers by cleared(id).
  void clear_cache(std::uint32_t id);

  void stop();
  Stats stats() const;

  /// Works until stop(). One turn is one step().
  Result<void> run();

  /// One turn: commands, admission, one engine step. Returns false when there is nothing to do.
  /// For run() and for tests that drive the loop themselves.
  Result<bool> turn();

 private:
  struct Running {
    Job job;
    std::vector<engine::Token> tokens;  // Prompt and what was sampled.
    std::uint32_t output_tokens = 0;
    std::uint64_t order = 0;  // Smaller is older.
    TextFilter filter;
    TimePoint started_at;
    TimePoint first_token_at;
    bool announced = false;  // started() was sent (not again after it gave up its cells).

    Running(Job taken, std::uint64_t place);
  };

  struct Sequence {
    engine::SequenceId id = 0;
    std::vector<engine::Token> held;   // What the engine holds for it.
    std::unique_ptr<Running> running;  // Null: idle; `held` is kept for re-use.
    std::uint64_t used_at = 0;         // Larger is later.
  };

  struct Commands {
    std::deque<Job> jobs;
    std::vector<std::uint32_t> cancels;
    std::vector<std::uint32_t> clears;
    bool empty() const { return jobs.empty() && cancels.empty() && clears.empty(); }
  };

  void take_commands();
  void apply_cancel(std::uint32_t id);
  void accept(Job job);
  void start_waiting();
  void start(std::unique_ptr<Running> running);
  Sequence* free_sequence();
  std::uint32_t place_prefix(Sequence& target, Sequence* best, std::uint32_t common);

  Result<bool> step();
  void plan_step(std::vector<engine::StepInput>& inputs, std::vector<Sequence*>& members);
  bool make_room();
  void take_sampled(Sequence& sequence, engine::Token token);
  void end_with(Sequence& sequence, StopCause cause);
  void leave(Sequence& sequence);
  void after_request(std::uint32_t id);
  /// Forgets all idle sequences, and gives the engine's buffers back where nothing runs.
  Cleared free_memory();
  void publish_stats();

  engine::Engine& engine_;
  JobEvents& events_;
  const Clock& clock_;
  const Options options_;
  ChunkSize chunk_size_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Commands commands_;  // Guarded by mutex_, as are the next two.
  Stats stats_;
  bool stopping_ = false;

  // The loop's thread only, from here on.
  std::vector<Sequence> sequences_;
  std::deque<std::unique_ptr<Running>> waiting_;
  std::uint64_t counter_ = 0;
  std::pair<std::uint32_t, std::uint32_t> published_load_;  // Running, waiting.
};

}  // namespace pensieve::worker
