#include "sim/worker.h"

#include <algorithm>
#include <csignal>
#include <new>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "memory/admission.h"
#include "sim/speech.h"
#include "worker/messages.h"
#include "worker/testing/fake_engine.h"
#include "worker/worker_end.h"

namespace pensieve::sim {
namespace {

namespace asio = boost::asio;
using worker::Frame;
using worker::FrameType;
using worker::WorkerEnd;

constexpr Bytes kProcess = 50_MiB;
constexpr Duration kHeartbeatEvery = std::chrono::seconds(1);
/// How long the simulated kernel needs to take a killed process down.
constexpr std::uint64_t kReapMsMax = 40;

int exit_status(int code) {
  return code << 8;
}

std::uint32_t cells_of(const engine::LoadOptions& options, std::uint32_t window) {
  return options.cells > 0 ? options.cells : window;
}

}  // namespace

engine::Plan plan_for(const ModelShape& shape, const engine::LoadOptions& options) {
  engine::Plan plan;
  plan.context_train_tokens = shape.context_train_tokens;
  plan.context_tokens =
      options.context_tokens > 0 ? options.context_tokens : shape.context_train_tokens;
  plan.cells = cells_of(options, plan.context_tokens);
  plan.estimate.weights_mapped = shape.weights_mapped;
  plan.estimate.weights_copied = shape.weights_copied;
  plan.estimate.kv = Bytes(shape.kv_per_cell.count() * plan.cells);
  plan.estimate.compute = shape.compute;
  plan.estimate.process = kProcess;
  plan.resize_copy = plan.estimate.kv;
  return plan;
}

/// The arithmetic engine of the batch loop's tests, with our model's words, time and memory.
class SimEngine final : public worker::FakeEngine {
 public:
  SimEngine(std::uint32_t cells, std::uint32_t sequences, const ModelShape& shape)
      : FakeEngine(cells, sequences), shape_(shape) {
    next_token = [](const Tokens& tokens) { return sim::next_token(tokens); };
  }

  /// Memory is taken or given back; an error where it cannot be taken.
  std::function<void(bool takes, Bytes bytes)> on_memory;
  std::function<Result<void>()> before_step;
  Duration last_step{};

  Result<Tokens> tokenize(const engine::Prompt& prompt) const override {
    return sim::tokens_of(prompt);
  }
  Result<void> step(std::span<const engine::StepInput> inputs, Tokens& sampled) override {
    if (const Result<void> may = before_step(); !may) return may;
    if (released_ > Bytes()) on_memory(true, std::exchange(released_, Bytes()));
    steps.clear();  // Kept for tests that look at them; here they would only grow.
    std::size_t tokens = 0;
    for (const engine::StepInput& input : inputs) tokens += input.tokens.size();
    last_step = shape_.step + shape_.per_token * static_cast<Duration::rep>(tokens);
    return FakeEngine::step(inputs, sampled);
  }
  /// What is used is copied aside, then the old cells go, then the new ones come.
  Result<std::uint32_t> resize(std::uint32_t wanted) override {
    const Bytes before = kv();
    on_memory(true, before);
    Result<std::uint32_t> resized = FakeEngine::resize(wanted);
    on_memory(false, before);
    if (released_ > Bytes()) {
      released_ = Bytes(kv().count() + shape_.compute.count());
      return resized;
    }
    on_memory(kv() > before,
              Bytes(std::max(kv(), before).count() - std::min(kv(), before).count()));
    return resized;
  }
  Bytes clear_cache() override { return Bytes(); }
  Bytes release_buffers() override {
    if (released_ > Bytes()) return Bytes();
    released_ = Bytes(kv().count() + shape_.compute.count());
    on_memory(false, released_);
    return released_;
  }

 private:
  Bytes kv() const { return Bytes(shape_.kv_per_cell.count() * cells()); }

  const ModelShape& shape_;
  Bytes released_;
};

worker::LinkFactory SimWorker::factory(WorkerWorld& world) {
  return [&world](const asio::any_io_executor& executor, const Clock& clock,
                  const worker::LinkOptions& options,
                  std::function<void(const worker::WorkerGone&)> on_end)
             -> Result<std::shared_ptr<worker::Link>> {
    if (world.random.chance(world.start_fails)) {
      world.trace.add("worker cannot be started");
      return fail(Code::kNotFound, "simulated: no such program");
    }
    if (world.forgets_ends && world.random.chance(0.2)) on_end = nullptr;
    std::shared_ptr<SimWorker> started(
        new SimWorker(world, executor, clock, options, std::move(on_end)));
    world.alive.push_back(started);
    ++world.started;
    asio::co_spawn(executor, started->watch(), asio::detached);
    return started;
  };
}

SimWorker::SimWorker(WorkerWorld& world, const asio::any_io_executor& executor, const Clock& clock,
                     const worker::LinkOptions& options,
                     std::function<void(const worker::WorkerGone&)> on_end)
    : Link(executor, clock, options, std::move(on_end)), world_(world), id_(world.next_id++) {
  world_.trace.add("worker starts", id_);
  worker::Hello hello;
  hello.engine = "sim";
  hello.version = PENSIEVE_VERSION;
  hold(Bytes(kProcess.count() / 2));
  say(FrameType::kHello, 0, worker::encode(hello));
}

SimWorker::~SimWorker() = default;

void SimWorker::kill(WorkerEnd verdict) {
  if (!lives_) return;
  world_.trace.add("worker is killed by us", id_, static_cast<std::uint64_t>(verdict));
  if (!our_verdict_) our_verdict_ = verdict;
  die(SIGKILL);
}

void SimWorker::die_for_memory() {
  if (!lives_) return;
  world_.trace.add("worker is killed by the kernel", id_);
  killed_for_memory_ = true;
  die(SIGKILL);
}

void SimWorker::die(int wait_status) {
  if (!lives_) return;
  lives_ = false;
  wait_status_ = wait_status;
  anonymous_ = Bytes();
  world_.machine.remove_worker(id_);
  reaped_at_ = clock().now() + std::chrono::milliseconds(world_.random.below(kReapMsMax));
}

/// The socket has ended; a little later the process is reaped.
void SimWorker::be_dead() {
  if (usable()) end_conversation();
  if (gone() || clock().now() < reaped_at_) return;
  inbox_.clear();
  inbox_bytes_ = 0;
  loop_.reset();
  engine_.reset();
  const WorkerEnd end = worker::classify({.wait_status = wait_status_,
                                          .stop_requested = stop_requested_,
                                          .kernel_killed_for_memory = killed_for_memory_,
                                          .our_verdict = our_verdict_});
  world_.trace.add("worker has ended", id_, static_cast<std::uint64_t>(end));
  tell_end({end, worker::describe(end, wait_status_)});
  if (world_.on_end) world_.on_end();
}

void SimWorker::hold(Bytes anonymous) {
  if (!lives_) return;
  anonymous_ = anonymous;
  world_.machine.set_worker(id_, anonymous);  // May be the end of us.
}

void SimWorker::suffer(WorkerFault fault) {
  if (!lives_) return;
  world_.trace.add("worker suffers", id_, static_cast<std::uint64_t>(fault));
  switch (fault) {
    case WorkerFault::kAbort:
      return die(SIGABRT);
    case WorkerFault::kKillFromOutside:
      return die(SIGKILL);
    case WorkerFault::kUnexpectedExit:
      return die(exit_status(0));
    case WorkerFault::kEngineFailure:
    case WorkerFault::kBadAlloc:
      in_next_step_ = fault;
      return;
    case WorkerFault::kHang:
      hangs_ = true;
      return;
    case WorkerFault::kGarbage:
      return kill(WorkerEnd::kProtocolError);  // As WorkerLink does with what is no frame.
    case WorkerFault::kWrongFrame:
      return say(FrameType::kShutdown, 0, "");
    case WorkerFault::kClosesSocket:
      end_conversation();
      return kill(WorkerEnd::kProtocolError);
    case WorkerFault::kSlow:
      slowness_ = 20;
      return;
    case WorkerFault::kLeak:
      leak_per_second_ = Bytes(world_.random.between(1, 400) << 20);
      return;
    case WorkerFault::kCount:
      break;
  }
  PENSIEVE_CHECK(false);
}

void SimWorker::write_held(FrameType type, std::uint32_t request, std::string_view payload,
                           std::shared_ptr<void> hold) {
  if (!lives_) return;
  inbox_.push_back({{type, request, std::string(payload)}, std::move(hold)});
  inbox_bytes_ += payload.size() + worker::kFrameHeaderBytes;
}

void SimWorker::tick(Duration passed) {
  if (!lives_) return be_dead();
  if (leak_per_second_ > Bytes()) {
    const auto leaked = static_cast<std::uint64_t>(static_cast<double>(leak_per_second_.count()) *
                                                   std::chrono::duration<double>(passed).count());
    hold(Bytes(anonymous_.count() + leaked));
  }
  if (hangs_) return;
  while (lives_ && !inbox_.empty()) {
    const Frame frame = std::move(inbox_.front().frame);
    inbox_.pop_front();
    inbox_bytes_ -= frame.payload.size() + worker::kFrameHeaderBytes;
    handle(frame);
  }
  if (lives_ && load_) go_on_loading(passed);
  if (lives_ && loop_ && clock().now() >= busy_until_) turn();
  if (!lives_ || clock().now() - heartbeat_at_ < kHeartbeatEvery) return;
  if (loop_) loop_->look_again();
  beat();
}

void SimWorker::say(FrameType type, std::uint32_t request, std::string_view payload) {
  if (!lives_ || !usable()) return;
  const Result<void> understood = receive({type, request, std::string(payload)});
  if (!understood) kill(WorkerEnd::kProtocolError);
}

void SimWorker::say_failure(std::uint32_t request, const Error& error) {
  say(FrameType::kFailed, request, worker::encode(worker::Failed{error.code, error.message}));
}

void SimWorker::handle(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kPlan:
      return plan(frame);
    case FrameType::kLoad:
      return load(frame);
    case FrameType::kGenerate:
      return generate(frame);
    case FrameType::kCountTokens:
      return count_tokens(frame);
    case FrameType::kCancel:
      if (loop_) loop_->cancel(frame.request);
      return;
    case FrameType::kClearCache:
      if (loop_) return loop_->clear_cache(frame.request);
      return say(FrameType::kCleared, frame.request, worker::encode(worker::Cleared{}));
    case FrameType::kLimits:
    case FrameType::kResize:
    case FrameType::kResizeRefused:
      return obey(frame);
    case FrameType::kShutdown:
      world_.trace.add("worker stops when asked", id_);
      return die(exit_status(0));
    default:
      return;
  }
}

/// As Session::obey() does.
void SimWorker::obey(const Frame& frame) {
  bool understood = false;
  if (frame.type == FrameType::kLimits) {
    if (const auto limits = worker::decode_limits(frame.payload)) {
      understood = true;
      limits_ = *limits;
      if (loop_) loop_->set_limits(*limits);
    }
  } else if (frame.type == FrameType::kResize) {
    if (const auto resize = worker::decode_resize(frame.payload)) {
      understood = true;
      world_.trace.add("worker shall have cells", id_, resize->cells);
      if (loop_) loop_->resize(resize->cells);
      if (!loop_) resized({});
    }
  } else if (const auto refused = worker::decode_resize_refused(frame.payload)) {
    understood = true;
    world_.trace.add("worker gets no cells", id_);
    if (loop_) loop_->refuse_cells(*refused);
  }
  PENSIEVE_CHECK(understood);  // The gateway never sends what makes no sense.
}

void SimWorker::plan(const Frame& frame) {
  const Result<engine::LoadOptions> options = worker::decode_load_options(frame.payload);
  if (!options) return say_failure(frame.request, options.error());
  say(FrameType::kPlanned, frame.request, worker::encode(plan_for(world_.shape, *options)));
}

void SimWorker::load(const Frame& frame) {
  const Result<engine::LoadOptions> options = worker::decode_load_options(frame.payload);
  if (!options) return say_failure(frame.request, options.error());
  if (world_.random.chance(world_.load_fails)) {
    world_.trace.add("load fails", id_);
    return say_failure(frame.request, {Code::kInternal, "simulated: the file is broken"});
  }
  const engine::MemoryEstimate estimate = plan_for(world_.shape, *options).estimate;
  load_ = Load{frame.request, *options,
               Bytes(estimate.anonymous().count() / 100 * world_.true_percent)};
}

void SimWorker::go_on_loading(Duration passed) {
  const auto step =
      static_cast<std::uint64_t>(static_cast<double>(world_.shape.load_per_second.count()) *
                                 std::chrono::duration<double>(passed).count());
  if (anonymous_.count() + step < load_->target.count()) {
    hold(Bytes(anonymous_.count() + step));
    if (!lives_) return;
    return say(FrameType::kLoadProgress, load_->request, "0.5");
  }
  const Load load = *std::exchange(load_, std::nullopt);
  hold(std::max(load.target, anonymous_));
  if (!lives_) return;
  const engine::Plan plan = plan_for(world_.shape, load.options);
  context_tokens_ = plan.context_tokens;
  engine_ = std::make_unique<SimEngine>(plan.cells, load.options.sequences_max, world_.shape);
  engine_->on_memory = [this](bool takes, Bytes bytes) {
    hold(takes ? Bytes(anonymous_.count() + bytes.count()) : saturating_sub(anonymous_, bytes));
  };
  engine_->before_step = [this]() -> Result<void> {
    if (in_next_step_ == WorkerFault::kBadAlloc) throw std::bad_alloc();
    if (in_next_step_) return fail(Code::kInternal, "simulated: the engine fails");
    return {};
  };
  loop_ = std::make_unique<worker::BatchLoop>(
      *engine_, static_cast<worker::JobEvents&>(*this), clock(),
      worker::BatchLoop::Options{.sequences_max = load.options.sequences_max,
                                 .context_tokens = plan.context_tokens,
                                 .cells_max = load.options.cells_max,
                                 .step_tokens_max = load.options.step_tokens_max});
  if (limits_) loop_->set_limits(*limits_);
  world_.trace.add("worker has loaded", id_, anonymous_.count() >> 20);
  engine::ModelInfo info;
  info.description = "simulated";
  info.context_tokens = plan.context_tokens;
  info.context_train_tokens = plan.context_train_tokens;
  info.cells = plan.cells;
  say(FrameType::kLoaded, load.request, worker::encode(info));
}

void SimWorker::generate(const Frame& frame) {
  Result<worker::GenerateRequest> request = worker::decode_generate_request(frame.payload);
  if (!request) return say_failure(frame.request, request.error());
  if (!loop_) return say_failure(frame.request, {Code::kUnavailable, "no model is loaded"});
  std::vector<engine::Token> tokens = tokens_of(request->prompt);
  if (tokens.size() > context_tokens_ - 1) {
    return say_failure(frame.request, {Code::kInvalidArgument, "prompt is too long"});
  }
  const Result<void> submitted = loop_->submit({.id = frame.request,
                                                .prompt = std::move(tokens),
                                                .output_tokens_max = request->output_tokens_max,
                                                .stop_sequences = request->stop_sequences,
                                                .sampling = request->sampling});
  if (!submitted) say_failure(frame.request, submitted.error());
}

void SimWorker::count_tokens(const Frame& frame) {
  const Result<engine::Prompt> prompt = worker::decode_prompt(frame.payload);
  if (!prompt) return say_failure(frame.request, prompt.error());
  say(FrameType::kCounted, frame.request,
      worker::encode(worker::Counted{static_cast<std::uint32_t>(tokens_of(*prompt).size())}));
}

void SimWorker::turn() {
  engine_->last_step = Duration::zero();
  try {
    const Result<bool> worked = loop_->turn();
    if (!worked) return die(exit_status(worker::kExitEngineFailure));
  } catch (const std::bad_alloc&) {
    return die(exit_status(worker::kExitOutOfMemory));
  }
  busy_until_ = clock().now() + engine_->last_step * static_cast<Duration::rep>(slowness_);
}

void SimWorker::beat() {
  if (!lives_) return;
  heartbeat_at_ = clock().now();
  worker::Heartbeat heartbeat;
  if (loop_) {
    const worker::BatchLoop::Stats stats = loop_->stats();
    heartbeat.running = stats.running;
    heartbeat.waiting = stats.waiting;
    heartbeat.cached_tokens = stats.cached_tokens;
    heartbeat.cells = stats.cells;
    heartbeat.cells_used = stats.cells_used;
  }
  heartbeat.resident = anonymous_;
  heartbeat.anonymous = anonymous_;
  say(FrameType::kHeartbeat, 0, worker::encode(heartbeat));
}

std::optional<worker::Refused> SimWorker::check_memory(const std::function<void()>& free_memory) {
  const auto status_now = [this] {
    const memory::Reading reading = world_.machine.reading();
    memory::Monitor::Status status;
    status.level = memory::level_for(reading.available, world_.floors);
    status.available = reading.available;
    status.total = reading.total;
    return status;
  };
  memory::Monitor::Status status = status_now();
  if (status.level == memory::Level::kEmergency) {
    free_memory();
    status = status_now();
  }
  const memory::Admission admission = memory::decide(status);
  const auto* refusal = std::get_if<memory::Refuse>(&admission);
  if (refusal == nullptr) return std::nullopt;
  worker::Refused refused;
  refused.level = refusal->level;
  refused.available = refusal->available;
  return refused;
}

void SimWorker::accepted(std::uint32_t id, const worker::Accepted& event) {
  ++world_.accepted;
  world_.trace.add("request is accepted", id_, id);
  say(FrameType::kAccepted, id, worker::encode(event));
}
void SimWorker::started(std::uint32_t id, const worker::Started& event) {
  say(FrameType::kStarted, id, worker::encode(event));
}
void SimWorker::said(std::uint32_t id, const engine::AnswerPiece& piece) {
  const bool wrong = world_.mixes_answers && world_.random.chance(0.001);
  say(FrameType::kText, id, wrong ? "1234 " : piece.text);
}
void SimWorker::done(std::uint32_t id, const worker::Done& event) {
  world_.trace.add("request is done", id_, id);
  say(FrameType::kDone, id, worker::encode(event));
}
void SimWorker::embedded(std::uint32_t id, const worker::Embedded& event) {
  say(FrameType::kEmbedded, id, worker::encode(event));
}
void SimWorker::failed(std::uint32_t id, const worker::Failed& event) {
  world_.trace.add("request fails in its worker", id_, id);
  say(FrameType::kFailed, id, worker::encode(event));
}
void SimWorker::refused(std::uint32_t id, const worker::Refused& event) {
  world_.trace.add("request is refused by its worker", id_, id);
  say(FrameType::kRefused, id, worker::encode(event));
}
void SimWorker::cleared(std::uint32_t id, const worker::Cleared& event) {
  say(FrameType::kCleared, id, worker::encode(event));
}
void SimWorker::need_cells(const worker::NeedCells& need) {
  world_.trace.add("worker needs cells", id_, need.cells_wanted);
  say(FrameType::kNeedCells, 0, worker::encode(need));
}
void SimWorker::resized(const worker::Resized& event) {
  world_.trace.add("worker has cells", id_, event.cells);
  say(FrameType::kResized, 0, worker::encode(event));
}

}  // namespace pensieve::sim
