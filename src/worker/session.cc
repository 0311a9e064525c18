#include "worker/session.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "memory/admission.h"
#include "memory/monitor.h"
#include "memory/report.h"
#include "worker/batch_loop.h"
#include "worker/frame.h"
#include "worker/messages.h"
#include "worker/prefix_exchange.h"
#include "worker/prefix_store.h"
#include "worker/preparer.h"
#include "worker/process_memory.h"
#include "worker/prompt_limit.h"
#include "worker/worker_end.h"

namespace pensieve::worker {
namespace {

/// How long a clean end may take to store what is idle. The gateway gives a worker two seconds.
constexpr Duration kStoreAtEndMax = std::chrono::milliseconds(1200);

/// Ends the process without destructors: another thread may be deep inside the engine.
[[noreturn]] void end_now(int code) {
  log::stop();
  ::_exit(code);
}

FrameType frame_of(engine::AnswerPiece::Kind kind) {
  switch (kind) {
    case engine::AnswerPiece::Kind::kText:
      return FrameType::kText;
    case engine::AnswerPiece::Kind::kThinking:
      return FrameType::kThinking;
    case engine::AnswerPiece::Kind::kCallStart:
      return FrameType::kCallStart;
    case engine::AnswerPiece::Kind::kCallInput:
      return FrameType::kCallInput;
    case engine::AnswerPiece::Kind::kCallEnd:
      return FrameType::kCallEnd;
  }
  return FrameType::kText;
}

class Session final : private JobEvents {
 public:
  Session(int socket, const engine::EngineFactory& make_engine, memory::MemorySource& memory_source,
          const Clock& clock, const SessionOptions& options)
      : socket_(socket),
        clock_(clock),
        options_(options),
        memory_source_(memory_source),
        engine_(make_engine([this] { ticks_.fetch_add(1, std::memory_order_relaxed); })) {}

  int serve();

 private:
  // Frames, in the reading thread.
  bool wait_for_frame();
  bool handle(Frame frame);
  void obey(const Frame& frame);
  void plan(const Frame& frame);
  void load(const Frame& frame);
  void generate(Frame frame);
  void embed(const Frame& frame);
  void count_tokens(const Frame& frame);
  void open_store(const engine::LoadOptions& options);
  void start_loop(const engine::LoadOptions& options, const engine::ModelInfo& info);
  void stop_loop();
  void store_idle();
  void send_heartbeat_if_due();
  void send_heartbeat();  // From either thread.

  // Events, in the loop's thread.
  std::optional<Refused> check_memory(const std::function<void()>& free_memory) override;
  void accepted(std::uint32_t id, const Accepted& event) override {
    send(FrameType::kAccepted, id, encode(event));
  }
  void started(std::uint32_t id, const Started& event) override {
    send(FrameType::kStarted, id, encode(event));
  }
  void said(std::uint32_t id, const engine::AnswerPiece& piece) override {
    send(frame_of(piece.kind), id, piece.text);
  }
  void done(std::uint32_t id, const Done& event) override {
    send(FrameType::kDone, id, encode(event));
  }
  void embedded(std::uint32_t id, const Embedded& event) override {
    send(FrameType::kEmbedded, id, encode(event));
  }
  void failed(std::uint32_t id, const Failed& event) override {
    send(FrameType::kFailed, id, encode(event));
  }
  void refused(std::uint32_t id, const Refused& event) override {
    send(FrameType::kRefused, id, encode(event));
  }
  void cleared(std::uint32_t id, const Cleared& event) override {
    send(FrameType::kCleared, id, encode(event));
  }
  void need_cells(const NeedCells& need) override { send(FrameType::kNeedCells, 0, encode(need)); }
  void resized(const Resized& event) override { send(FrameType::kResized, 0, encode(event)); }
  void ended(std::uint32_t id) override;
  void load_changed() override { send_heartbeat(); }
  memory::Monitor::Status memory_now();

  void send(FrameType type, std::uint32_t request, std::string_view payload);
  void send_failure(std::uint32_t request, const Error& error) {
    send(FrameType::kFailed, request, encode(Failed{error.code, error.message}));
  }

  const int socket_;
  const Clock& clock_;
  const SessionOptions options_;
  memory::MemorySource& memory_source_;  // The loop's thread only.
  std::atomic<std::uint64_t> ticks_ = 0;
  std::mutex write_mutex_;

  std::unique_ptr<engine::Engine> engine_;
  std::uint32_t context_tokens_ = 0;
  std::optional<Limits> limits_;  // Until there is a loop to obey them.
  std::unique_ptr<PrefixStore> store_;
  std::unique_ptr<PrefixExchange> exchange_;
  std::atomic<BatchLoop*> to_wake_ =
      nullptr;  // By the store's threads; the loop, once it is there.
  std::unique_ptr<BatchLoop> loop_;
  std::thread loop_thread_;
  std::unique_ptr<Preparer> preparer_;
  std::thread preparer_thread_;

  TimePoint heartbeat_at_{};
  std::uint64_t ticks_at_heartbeat_ = 0;
};

int Session::serve() {
  send(FrameType::kHello, 0,
       encode(Hello{options_.engine_name, options_.version, options_.protections}));
  while (true) {
    if (!wait_for_frame()) continue;
    Result<Frame> frame = read_frame(socket_);
    if (!frame) {
      if (frame.error().code == Code::kUnavailable) {
        log::info("the gateway is gone; ending");
        end_now(0);
      }
      log::error("{}", frame.error().message);
      end_now(kExitEngineFailure);
    }
    if (!handle(*std::move(frame))) break;
  }
  stop_loop();
  return 0;
}

/// Sends heartbeats while there is nothing to read. Returns whether there is.
bool Session::wait_for_frame() {
  send_heartbeat_if_due();
  if (loop_) loop_->look_again();
  if (store_) store_->tick();
  pollfd poll_socket{socket_, POLLIN, 0};
  const auto wait =
      std::chrono::duration_cast<std::chrono::milliseconds>(options_.heartbeat_every).count();
  return ::poll(&poll_socket, 1, static_cast<int>(wait)) > 0;
}

bool Session::handle(Frame frame) {
  switch (frame.type) {
    case FrameType::kPlan:
      plan(frame);
      return true;
    case FrameType::kLoad:
      load(frame);
      return true;
    case FrameType::kGenerate:
      generate(std::move(frame));
      return true;
    case FrameType::kEmbed:
      embed(frame);
      return true;
    case FrameType::kCountTokens:
      count_tokens(frame);
      return true;
    case FrameType::kCancel:
      if (preparer_) preparer_->cancel(frame.request);
      return true;
    case FrameType::kClearCache:
      if (loop_) {
        loop_->clear_cache(frame.request, frame.payload == kClearStoredToo);
      } else {
        send(FrameType::kCleared, frame.request, encode(Cleared{}));
      }
      return true;
    case FrameType::kLimits:
    case FrameType::kResize:
    case FrameType::kResizeRefused:
      obey(frame);
      return true;
    case FrameType::kShutdown:
      return false;
    default:
      log::error("the gateway sent a frame that only a worker may send");
      end_now(kExitEngineFailure);
  }
}

/// Orders about memory. One that makes no sense ends the worker: to guess would be worse.
void Session::obey(const Frame& frame) {
  std::optional<Error> error;
  if (frame.type == FrameType::kLimits) {
    const Result<Limits> limits = decode_limits(frame.payload);
    if (limits) {
      limits_ = *limits;
      if (loop_) loop_->set_limits(*limits);
      if (store_) store_->set_budgets(limits->parked_bytes_max, limits->stored_bytes_max);
    } else {
      error = limits.error();
    }
  } else if (frame.type == FrameType::kResize) {
    const Result<Resize> resize = decode_resize(frame.payload);
    if (!resize) {
      error = resize.error();
    } else if (loop_) {
      loop_->resize(resize->cells);
    } else {
      resized({});
    }
  } else {
    const Result<ResizeRefused> refused = decode_resize_refused(frame.payload);
    if (!refused) {
      error = refused.error();
    } else if (loop_) {
      loop_->refuse_cells(*refused);
    }
  }
  if (!error) return;
  log::error("{}", error->message);
  end_now(kExitEngineFailure);
}

void Session::plan(const Frame& frame) {
  const Result<engine::LoadOptions> options = decode_load_options(frame.payload);
  if (!options) return send_failure(frame.request, options.error());
  const Result<engine::Plan> plan = engine_->plan(*options);
  if (!plan) return send_failure(frame.request, plan.error());
  send(FrameType::kPlanned, frame.request, encode(*plan));
}

void Session::load(const Frame& frame) {
  const Result<engine::LoadOptions> options = decode_load_options(frame.payload);
  if (!options) return send_failure(frame.request, options.error());
  if (loop_) return send_failure(frame.request, {Code::kInvalidArgument, "already loaded"});
  TimePoint told_at{};
  const auto progress = [&](float part) {
    // Bounded by time: a model of 10,000 tensors must not send 10,000 frames.
    const TimePoint now = clock_.now();
    if (part < 1.0F && now - told_at < std::chrono::milliseconds(100)) return;
    told_at = now;
    send(FrameType::kLoadProgress, frame.request, fmt::format("{:.3f}", part));
  };
  const Result<engine::ModelInfo> info = engine_->load(*options, progress);
  if (!info) return send_failure(frame.request, info.error());
  if (std::max(info->cells, options->cells_max) < info->context_tokens) {
    return send_failure(
        frame.request,
        {Code::kInvalidArgument,
         fmt::format("a window of {} tokens needs as many KV cells; {} are the most that are "
                     "allowed",
                     info->context_tokens, std::max(info->cells, options->cells_max))});
  }
  open_store(*options);
  start_loop(*options, *info);
  send(FrameType::kLoaded, frame.request, encode(*info));
}

/// Without a fingerprint of the model nothing is stored: a state of another model would be read.
void Session::open_store(const engine::LoadOptions& options) {
  Result<std::string> fingerprint = model_fingerprint(options.model_path);
  if (fingerprint && !options.projector_path.empty()) {
    // The tokens of a picture are its file's; its embeddings are the projector's.
    const Result<std::string> projector = model_fingerprint(options.projector_path);
    fingerprint = projector ? *fingerprint + " images " + *projector : projector;
  }
  if (!fingerprint) log::warning("prefixes are not stored: {}", fingerprint.error().message);
  store_ = std::make_unique<PrefixStore>(
      clock_, PrefixStore::Options{
                  .directory = fingerprint ? options_.prefix_directory : std::string(),
                  .identity = fmt::format("pensieve {} | {} {} | model {}", options_.version,
                                          options_.engine_name, engine_->state_format(),
                                          fingerprint ? *fingerprint : "unknown"),
                  .can_go_back = engine_->can_go_back(),
                  .changed = [this] {
                    if (BatchLoop* const loop = to_wake_) loop->wake();
                  }});
  exchange_ = std::make_unique<PrefixExchange>(*engine_, *store_, clock_);
  if (limits_) store_->set_budgets(limits_->parked_bytes_max, limits_->stored_bytes_max);
}

/// So that the next load starts warm.
void Session::store_idle() {
  const TimePoint end = clock_.now() + kStoreAtEndMax;
  store_->write_all();
  const auto left = [&] { return std::max(end - clock_.now(), Duration()); };
  // What finds no room in memory gets another chance when the disk has taken the others.
  while (loop_->store_one() || (store_->wait_written(left()) && loop_->store_one())) {
  }
  store_->wait_written(left());
}

void Session::start_loop(const engine::LoadOptions& options, const engine::ModelInfo& info) {
  context_tokens_ = info.context_tokens;
  loop_ =
      std::make_unique<BatchLoop>(*engine_, static_cast<JobEvents&>(*this), clock_,
                                  BatchLoop::Options{.sequences_max = options.sequences_max,
                                                     .context_tokens = info.context_tokens,
                                                     .cells_max = options.cells_max,
                                                     .step_tokens_max = options.step_tokens_max},
                                  store_.get(), exchange_.get());
  to_wake_ = loop_.get();
  if (limits_) loop_->set_limits(*limits_);
  loop_thread_ = std::thread([this] {
    try {
      const Result<void> ended = loop_->run();
      if (ended) return;
      log::error("engine failure: {}", ended.error().message);
    } catch (const std::bad_alloc&) {
      log::error("an allocation failed");
      end_now(kExitOutOfMemory);
    }
    end_now(kExitEngineFailure);
  });
  preparer_ = std::make_unique<Preparer>(
      *engine_, *loop_, clock_, info.context_tokens,
      [this](std::uint32_t id, const Error& error) { send_failure(id, error); });
  preparer_thread_ = std::thread([this] {
    try {
      preparer_->run();
    } catch (const std::bad_alloc&) {
      log::error("an allocation failed");
      end_now(kExitOutOfMemory);
    }
  });
}

void Session::stop_loop() {
  if (!loop_) return;
  preparer_->stop();
  preparer_thread_.join();
  loop_->stop();
  loop_thread_.join();
  store_idle();
  // Its threads know the loop, which goes first otherwise.
  store_.reset();
}

void Session::generate(Frame frame) {
  if (!preparer_) return send_failure(frame.request, {Code::kUnavailable, "no model is loaded"});
  // As long as there is no room, what comes waits in the socket.
  while (!preparer_->wait_for_room(frame.payload.size(), options_.heartbeat_every)) {
    send_heartbeat_if_due();
  }
  const Result<void> added = preparer_->add(frame.request, std::move(frame.payload));
  if (!added) send_failure(frame.request, added.error());
}

void Session::embed(const Frame& frame) {
  if (!loop_) return send_failure(frame.request, {Code::kUnavailable, "no model is loaded"});
  auto tokens = tokens_to_embed(*engine_, frame.payload, context_tokens_);
  if (!tokens) return send_failure(frame.request, tokens.error());
  const Result<void> submitted = loop_->embed({frame.request, *std::move(tokens)});
  if (!submitted) send_failure(frame.request, submitted.error());
}

void Session::count_tokens(const Frame& frame) {
  const Result<engine::Prompt> prompt = decode_prompt(frame.payload);
  if (!prompt) return send_failure(frame.request, prompt.error());
  if (!loop_) return send_failure(frame.request, {Code::kUnavailable, "no model is loaded"});
  const Result<std::uint64_t> tokens =
      worker::count_tokens(*engine_, *prompt, context_tokens_, [this] {
        ticks_.fetch_add(1, std::memory_order_relaxed);
        send_heartbeat_if_due();
      });
  if (!tokens) return send_failure(frame.request, tokens.error());
  send(FrameType::kCounted, frame.request, encode(Counted{static_cast<std::uint32_t>(*tokens)}));
}

void Session::send_heartbeat_if_due() {
  const TimePoint now = clock_.now();
  if (now - heartbeat_at_ < options_.heartbeat_every) return;
  const BatchLoop::Stats stats = loop_ ? loop_->stats() : BatchLoop::Stats{};
  const std::uint64_t ticks = ticks_.load(std::memory_order_relaxed);
  // Work without progress: silence, and the gateway's watchdog counts.
  if (stats.busy && ticks == ticks_at_heartbeat_) return;
  if (preparer_ && preparer_->hangs()) return;
  heartbeat_at_ = now;
  ticks_at_heartbeat_ = ticks;
  send_heartbeat();
}

void Session::send_heartbeat() {
  const BatchLoop::Stats stats = loop_ ? loop_->stats() : BatchLoop::Stats{};
  const PrefixStore::Stats prefixes = store_ ? store_->stats() : PrefixStore::Stats{};
  Heartbeat heartbeat{.running = stats.running,
                      .waiting = stats.waiting + (preparer_ ? preparer_->count() : 0),
                      .cached_tokens = stats.cached_tokens,
                      .cells = stats.cells,
                      .cells_used = stats.cells_used,
                      .resident = {},
                      .anonymous = {},
                      .parked_bytes = prefixes.parked_bytes,
                      .prefixes = prefixes};
  if (const Result<ProcessMemory> memory = own_process_memory()) {
    heartbeat.resident = memory->resident;
    heartbeat.anonymous = memory->anonymous;
  }
  send(FrameType::kHeartbeat, 0, encode(heartbeat));
}

/// A reading of this very moment, without the gateway's hold: two holds that do not know of each
/// other would refuse for longer than either says.
memory::Monitor::Status Session::memory_now() {
  memory::Monitor::Status status;
  status.floors = options_.floors;
  const Result<memory::Reading> reading = memory_source_.read();
  if (!reading) {
    status.last_failure = reading.error().message;
    return status;  // Unknown, and therefore kLevelWhenUnknown.
  }
  status.level = memory::level_for(reading->available, options_.floors);
  status.measured = status.level;
  status.available = reading->available;
  status.total = reading->total;
  status.limited_by = reading->limited_by;
  return status;
}

std::optional<Refused> Session::check_memory(const std::function<void()>& free_memory) {
  memory::Monitor::Status status = memory_now();
  if (status.level == memory::Level::kEmergency) {
    free_memory();
    status = memory_now();
  }
  log::info("{}", memory::report_line(memory::Moment::kBefore, status.available, status.total));
  const memory::Admission admission = memory::decide(status);
  const auto* refusal = std::get_if<memory::Refuse>(&admission);
  if (refusal == nullptr) return std::nullopt;
  log::warning("refused right before generation: {} [{}]", refusal->reason,
               memory::describe(status));
  return Refused{refusal->level, refusal->available, {}};
}

void Session::ended(std::uint32_t) {
  log::info("{}", memory::report_line(memory::Moment::kAfter, memory_source_.read()));
  // Turns between tokens are progress too; an engine that only samples need not tick.
  ticks_.fetch_add(1, std::memory_order_relaxed);
}

void Session::send(FrameType type, std::uint32_t request, std::string_view payload) {
  const std::lock_guard lock(write_mutex_);
  const Result<void> written = write_frame(socket_, type, request, payload);
  if (!written) {
    log::info("the gateway is gone; ending");
    end_now(0);
  }
}

}  // namespace

int serve_session(int socket, const engine::EngineFactory& make_engine,
                  memory::MemorySource& memory_source, const Clock& clock,
                  const SessionOptions& options) {
  try {
    Session session(socket, make_engine, memory_source, clock, options);
    return session.serve();
  } catch (const std::bad_alloc&) {
    log::error("an allocation failed");
    end_now(kExitOutOfMemory);
  }
}

}  // namespace pensieve::worker
