// A worker behind the link seam: the production link and batch loop, over an engine and a process
// that are simulated.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "memory/level.h"
#include "sim/machine.h"
#include "sim/random.h"
#include "sim/trace.h"
#include "worker/batch_loop.h"
#include "worker/link.h"

namespace pensieve::sim {

/// How large the model is, and how fast.
struct ModelShape {
  Bytes weights_mapped;
  Bytes weights_copied;
  Bytes kv_per_cell;
  Bytes compute;
  std::uint32_t context_train_tokens = 32768;
  Bytes load_per_second;
  Duration step{};       // A step that decodes.
  Duration per_token{};  // On top, for each token of a prompt.
};

engine::Plan plan_for(const ModelShape& shape, const engine::LoadOptions& options);

/// How a worker can go wrong.
enum class WorkerFault : std::uint8_t {
  kAbort,
  kKillFromOutside,
  kUnexpectedExit,
  kEngineFailure,
  kBadAlloc,
  kHang,
  kGarbage,
  kWrongFrame,
  kClosesSocket,
  kSlow,
  kLeak,
  kCount,
};

class SimWorker;

/// What all workers of a simulation share.
struct WorkerWorld {
  Machine& machine;
  Trace& trace;
  Random& random;
  ModelShape shape;
  memory::Floors floors;
  std::uint64_t true_percent = 100;  // Of an estimate, that a worker really takes.
  double load_fails = 0;             // Probabilities.
  double start_fails = 0;
  WorkerId next_id = 1;
  std::deque<std::shared_ptr<SimWorker>> alive = {};  // Or not reaped yet.
  std::uint64_t started = 0;
  std::uint64_t accepted = 0;  // Requests.

  // Planted flaws (flaws.h).
  bool mixes_answers = false;
  bool forgets_ends = false;
  std::function<void()> on_end = nullptr;
};

class SimEngine;

/// Thread-safety: one thread.
class SimWorker final : public worker::Link, private worker::JobEvents {
 public:
  static worker::LinkFactory factory(WorkerWorld& world);

  ~SimWorker() override;

  void kill(worker::WorkerEnd verdict) override;
  pid_t pid() const override { return static_cast<pid_t>(id_); }

  /// What it does in the time up to now.
  void tick(Duration passed);
  /// Something goes wrong, now.
  void suffer(WorkerFault fault);
  /// The kernel has killed it for memory.
  void die_for_memory();

  WorkerId id() const { return id_; }
  bool lives() const { return lives_; }
  bool hangs() const { return hangs_; }
  bool leaks() const { return leak_per_second_ > Bytes(); }
  bool is_loading() const { return load_.has_value(); }
  Bytes anonymous() const { return anonymous_; }
  /// Open calls and what waits for them are the gateway's; this is what waits in the worker.
  std::uint32_t waiting() const { return loop_ ? loop_->stats().waiting : 0; }
  std::size_t inbox_bytes() const { return inbox_bytes_; }

 private:
  struct Waiting {
    worker::Frame frame;
    std::shared_ptr<void> hold;  // Of the gateway's account of buffers.
  };
  struct Load {
    std::uint32_t request = 0;
    engine::LoadOptions options;
    Bytes target;
  };

  SimWorker(WorkerWorld& world, const boost::asio::any_io_executor& executor, const Clock& clock,
            const worker::LinkOptions& options,
            std::function<void(const worker::WorkerGone&)> on_end);

  // The link.
  void write(worker::FrameType type, std::uint32_t request, std::string_view payload) override {
    write_held(type, request, payload, nullptr);
  }
  void write_held(worker::FrameType type, std::uint32_t request, std::string_view payload,
                  std::shared_ptr<void> hold) override;
  std::size_t outgoing_bytes() const override { return inbox_bytes_; }
  void expect_stop() override { stop_requested_ = true; }

  // The process.
  void die(int wait_status);
  void be_dead();
  void hold(Bytes anonymous);

  // The session.
  void say(worker::FrameType type, std::uint32_t request, std::string_view payload);
  void say_failure(std::uint32_t request, const Error& error);
  void handle(const worker::Frame& frame);
  void obey(const worker::Frame& frame);
  void plan(const worker::Frame& frame);
  void load(const worker::Frame& frame);
  void go_on_loading(Duration passed);
  void generate(const worker::Frame& frame);
  void count_tokens(const worker::Frame& frame);
  void turn();
  void beat();

  // The batch loop's events.
  std::optional<worker::Refused> check_memory(const std::function<void()>& free_memory) override;
  void accepted(std::uint32_t id, const worker::Accepted& event) override;
  void started(std::uint32_t id, const worker::Started& event) override;
  void said(std::uint32_t id, const engine::AnswerPiece& piece) override;
  void done(std::uint32_t id, const worker::Done& event) override;
  void embedded(std::uint32_t id, const worker::Embedded& event) override;
  void failed(std::uint32_t id, const worker::Failed& event) override;
  void refused(std::uint32_t id, const worker::Refused& event) override;
  void cleared(std::uint32_t id, const worker::Cleared& event) override;
  void need_cells(const worker::NeedCells& need) override;
  void resized(const worker::Resized& event) override;
  void ended(std::uint32_t) override {}
  void load_changed() override { beat(); }

  WorkerWorld& world_;
  const WorkerId id_;
  std::deque<Waiting> inbox_;
  std::size_t inbox_bytes_ = 0;

  bool lives_ = true;
  bool stop_requested_ = false;
  bool killed_for_memory_ = false;
  std::optional<worker::WorkerEnd> our_verdict_;
  int wait_status_ = 0;
  TimePoint reaped_at_{};

  bool hangs_ = false;
  std::uint32_t slowness_ = 1;  // Times as slow as usual.
  Bytes leak_per_second_;
  std::optional<WorkerFault> in_next_step_;
  Bytes anonymous_;

  std::optional<Load> load_;
  std::unique_ptr<SimEngine> engine_;
  std::unique_ptr<worker::BatchLoop> loop_;
  std::optional<worker::Limits> limits_;  // Until there is a loop to obey them.
  std::uint32_t context_tokens_ = 0;
  TimePoint busy_until_{};
  TimePoint heartbeat_at_{};
};

}  // namespace pensieve::sim
