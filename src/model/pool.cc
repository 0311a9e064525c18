#include "model/pool.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"
#include "memory/admission.h"
#include "memory/report.h"

namespace pensieve::model {
namespace {

namespace asio = boost::asio;
using worker::Frame;
using worker::FrameType;

/// A load that fails again and again must not keep a machine busy. Choice: doubling from a second.
constexpr Duration kBackoffFirst = std::chrono::seconds(1);
constexpr Duration kBackoffMax = std::chrono::seconds(30);
/// An answer to a plan or load may be this late after the last sign of progress.
constexpr Duration kAnswerWait = std::chrono::minutes(10);
/// A worker says hello and plans within this: neither reads more of a model than its head. It takes
/// longer only where [server] hang_seconds is more. Choice: a very slow disk.
constexpr Duration kPlanWaitLeast = std::chrono::seconds(10);
/// How long a worker that could not load may take to stop when asked.
constexpr Duration kFailedWorkerGrace = std::chrono::seconds(1);
/// The same for one that is idle: it has nothing to finish, so what takes longer hangs.
constexpr Duration kUnloadGrace = std::chrono::seconds(1);

LoadFailure broken(std::string message) {
  return {LoadFailure::Kind::kBroken, std::move(message)};
}

}  // namespace

std::string_view name(State state) {
  switch (state) {
    case State::kUnloaded:
      return "unloaded";
    case State::kLoading:
      return "loading";
    case State::kReady:
      return "ready";
    case State::kUnloading:
      return "unloading";
  }
  return "unloaded";
}

Pool::Pool(const asio::any_io_executor& executor, const Clock& clock, memory::Monitor& monitor,
           memory::Ledger& ledger, Options options)
    : executor_(executor),
      clock_(clock),
      monitor_(monitor),
      ledger_(ledger),
      options_(std::move(options)),
      reconciler_(ledger, options_.estimates_path),
      changed_(executor, TimePoint::max()) {}

Pool::~Pool() = default;

void Pool::enter(State state) {
  state_ = state;
  if (state == State::kReady) ready_since_ = used_at_ = clock_.now();
  if (state == State::kUnloaded) {
    link_.reset();
    reservation_.reset();
    reconciler_.end();
    stopped_.reset();
    dropped_ = false;
  }
  changed_.cancel();
}

asio::awaitable<Pool::Acquired> Pool::acquire() {
  bool tried = false;
  while (true) {
    if (state_ == State::kReady && link_->usable() && !dropped_) {
      used_at_ = clock_.now();
      co_return link_;
    }
    if (state_ == State::kUnloaded) {
      if (failure_ && (tried || clock_.now() < retry_not_before_)) {
        co_return std::unexpected(*failure_);
      }
      tried = true;
      enter(State::kLoading);
      asio::co_spawn(executor_, load_and_tell(), asio::detached);
      continue;  // It runs at once, and may have ended without a wait: a missing program.
    }
    // Who waited for a load shares its outcome, also a bad one.
    if (state_ == State::kLoading) tried = true;
    // Loading, unloading, or ready with a worker whose end is not classified yet: all change soon.
    // The timer never runs out; setting it anew here would wake all others who wait.
    co_await changed_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

asio::awaitable<void> Pool::load_and_tell() {
  Loaded loaded = co_await load();
  if (loaded && link_->gone()) {
    loaded = std::unexpected(broken("the worker ended as soon as it was ready"));
  }
  if (stopped_) loaded = std::unexpected(*stopped_);
  if (loaded) {
    failure_.reset();
    backoff_ = {};
    enter(State::kReady);
    co_return;
  }
  failure_ = loaded.error();
  if (failure_->kind == LoadFailure::Kind::kNotNow) ++refusals_;
  log::warning("the model {} is not loaded: {}", options_.model.id, failure_->message);
  if (failure_->kind != LoadFailure::Kind::kNotNow) {
    backoff_ = std::clamp(backoff_ * 2, kBackoffFirst, kBackoffMax);
    retry_not_before_ = clock_.now() + backoff_;
  }
  co_await end_failed_worker();
  enter(State::kUnloaded);
}

/// The reservation is given back by enter(kUnloaded): only once the process is really gone.
asio::awaitable<void> Pool::end_failed_worker() {
  if (!link_) co_return;
  link_->shut_down(kFailedWorkerGrace);
  Timer timer(executor_);
  while (!link_->gone()) {
    timer.expires_after(std::chrono::milliseconds(5));
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

asio::awaitable<Pool::Loaded> Pool::load() {
  if (const auto refused = refusal_before_start()) co_return std::unexpected(*refused);
  const std::uint64_t generation = ++generation_;
  reconciler_.set_key(estimate_key(options_.model.path, options_.model.engine,
                                   options_.sequences_max, kStepTokensMax));
  auto link = options_.start_worker(
      executor_, clock_,
      {.program = options_.worker_program,
       .args = worker_args(),
       .hang_after = std::max(options_.hang_after, kPlanWaitLeast)},
      [this, generation](const worker::WorkerGone& gone) { on_worker_end(generation, gone); });
  if (!link) co_return std::unexpected(broken(link.error().message));
  link_ = std::move(*link);
  auto plan = co_await plan_that_fits();
  if (!plan) co_return std::unexpected(plan.error());
  const worker::Hello* hello = link_->hello();
  if (hello == nullptr || hello->version != PENSIEVE_VERSION) {
    co_return std::unexpected(broken(fmt::format(
        "{} is version {}, not {}; install both programs together", options_.worker_program,
        hello == nullptr ? "unknown" : hello->version, PENSIEVE_VERSION)));
  }
  co_return co_await reserve_and_load(*plan);
}

asio::awaitable<std::expected<Frame, LoadFailure>> Pool::answer(worker::Call& call) {
  while (true) {
    worker::CallEvent event = co_await call.next(clock_.now() + kAnswerWait);
    if (const auto* gone = std::get_if<worker::WorkerGone>(&event)) {
      // A worker that the kernel shot while loading may fit another time; a crash will not heal.
      const bool memory = gone->end == worker::WorkerEnd::kKilledByKernel ||
                          gone->end == worker::WorkerEnd::kOutOfMemory;
      co_return std::unexpected(
          LoadFailure{memory ? LoadFailure::Kind::kNotNow : LoadFailure::Kind::kBroken,
                      "the worker ended while it loaded the model: " + gone->description});
    }
    auto* frame = std::get_if<Frame>(&event);
    if (frame == nullptr) co_return std::unexpected(broken("the worker does not answer"));
    if (frame->type == FrameType::kLoadProgress) {
      log::debug("loading {}: {}", options_.model.id, frame->payload);
      continue;
    }
    if (frame->type == FrameType::kFailed) {
      const Result<worker::Failed> failed = worker::decode_failed(frame->payload);
      co_return std::unexpected(broken(failed ? failed->message : failed.error().message));
    }
    co_return std::move(*frame);
  }
}

asio::awaitable<std::expected<engine::Plan, LoadFailure>> Pool::plan(std::uint32_t context) {
  const std::string payload = worker::encode(load_options(context));
  auto call = link_->open(FrameType::kPlan, payload);
  if (!call) co_return std::unexpected(broken(call.error().message));
  auto frame = co_await answer(**call);
  if (!frame) co_return std::unexpected(frame.error());
  Result<engine::Plan> plan = worker::decode_plan(frame->payload);
  if (!plan) co_return std::unexpected(broken(plan.error().message));
  plan->estimate = reconciler_.correct(plan->estimate);
  co_return *plan;
}

/// The window that the user named, or else the largest of wanted, wanted / 2, ... that fits now.
asio::awaitable<std::expected<engine::Plan, LoadFailure>> Pool::plan_that_fits() {
  if (options_.context_tokens > 0) co_return co_await plan(options_.context_tokens);
  auto smallest = co_await plan(kContextTokensLeast);
  if (!smallest) co_return smallest;
  std::uint32_t context = std::min(kContextTokensWanted, smallest->context_train_tokens);
  while (context > kContextTokensLeast) {
    auto candidate = co_await plan(context);
    if (!candidate) co_return candidate;
    const memory::Monitor::Status memory = monitor_.check();
    if (memory.available &&
        candidate->estimate.total() <=
            ledger_.largest_that_fits(*memory.available, options_.floors.critical)) {
      co_return candidate;
    }
    context /= 2;
  }
  co_return smallest;
}

asio::awaitable<Pool::Loaded> Pool::reserve_and_load(const engine::Plan& plan) {
  auto reservation = reserve(plan);
  if (!reservation) co_return std::unexpected(reservation.error());
  reservation_ = std::move(*reservation);
  link_->set_reserved(reservation_->held());
  log::info(
      "loading {} with a window of {} tokens; reserved {}GB (weights {}GB, KV {}GB, compute "
      "{}GB, process {}GB)",
      options_.model.id, plan.context_tokens, memory::gb_text(plan.estimate.total()),
      memory::gb_text(
          Bytes(plan.estimate.weights_mapped.count() + plan.estimate.weights_copied.count())),
      memory::gb_text(plan.estimate.kv), memory::gb_text(plan.estimate.compute),
      memory::gb_text(plan.estimate.process));
  // One tensor of a large model may take minutes to come from a slow disk.
  link_->set_hang_after(kAnswerWait);
  const std::string payload = worker::encode(load_options(plan.context_tokens));
  auto call = link_->open(FrameType::kLoad, payload);
  if (!call) co_return std::unexpected(broken(call.error().message));
  auto frame = co_await answer(**call);
  if (!frame) co_return std::unexpected(frame.error());
  Result<engine::ModelInfo> info = worker::decode_model_info(frame->payload);
  if (!info) co_return std::unexpected(broken(info.error().message));
  info_ = std::move(*info);
  reconciler_.begin(fmt::format("worker {}", link_->pid()), plan.estimate.weights_mapped);
  link_->set_hang_after(options_.hang_after);
  log::info("loaded {} ({}), worker {}", options_.model.id, info_->description, link_->pid());
  co_return Loaded();
}

std::expected<memory::Reservation, LoadFailure> Pool::reserve(const engine::Plan& plan) {
  const memory::Monitor::Status memory = monitor_.check();
  if (!memory.available || !memory.total) {
    return std::unexpected(
        too_large(plan, "the available memory cannot be read now", LoadFailure::Kind::kNotNow));
  }
  const Bytes needed = plan.estimate.total();
  auto reservation = ledger_.try_reserve(needed, *memory.available, options_.floors.critical);
  if (reservation) return std::move(*reservation);
  // What earlier runs took above the estimate says "not now", never "never".
  const Bytes uncorrected = saturating_sub(needed, reconciler_.status().raised);
  if (uncorrected < needed &&
      uncorrected <= ledger_.largest_that_fits(*memory.available, options_.floors.critical)) {
    reconciler_.doubt();
  }
  const std::optional<Bytes> with_floor = checked_add(uncorrected, options_.floors.critical);
  const bool ever = with_floor && *with_floor <= *memory.total;
  return std::unexpected(too_large(plan, memory::describe(reservation.error()),
                                   ever ? LoadFailure::Kind::kNotNow : LoadFailure::Kind::kNever));
}

/// A model that was loaded before needs no worker to tell that nothing can be loaded at this level;
/// the first time there is one, because only a plan tells "not now" from "never".
std::optional<LoadFailure> Pool::refusal_before_start() {
  if (!info_) return std::nullopt;
  const memory::Admission admission = memory::decide(monitor_.check());
  const auto* refuse = std::get_if<memory::Refuse>(&admission);
  if (refuse == nullptr) return std::nullopt;
  return LoadFailure{LoadFailure::Kind::kNotNow,
                     fmt::format("model {} is not loaded: {}", options_.model.id, refuse->reason)};
}

LoadFailure Pool::too_large(const engine::Plan& plan, const std::string& why,
                            LoadFailure::Kind kind) const {
  return {kind,
          fmt::format("model {} with a context of {} tokens does not fit: {}. {}",
                      options_.model.id, plan.context_tokens, why,
                      kind == LoadFailure::Kind::kNever
                          ? "This machine is too small for it; a smaller --context or model helps"
                          : "Free memory, or use a smaller --context or model")};
}

engine::LoadOptions Pool::load_options(std::uint32_t context) const {
  return {.model_path = options_.model.path,
          .context_tokens = context,
          .sequences_max = options_.sequences_max,
          .step_tokens_max = kStepTokensMax,
          .threads = options_.threads};
}

std::vector<std::string> Pool::worker_args() const {
  const memory::Floors& floors = options_.floors;
  std::vector<std::string> args{"--engine", options_.model.engine, "--floors-bytes"};
  for (const Bytes floor : {floors.caution, floors.warning, floors.critical, floors.emergency}) {
    args.push_back(std::to_string(floor.count()));
  }
  // All that the worker can read, and with whom it dies.
  args.insert(args.end(),
              {"--model", options_.model.path, "--gateway", std::to_string(::getpid())});
  if (options_.debug_log) args.emplace_back("--debug");
  return args;
}

void Pool::on_worker_end(std::uint64_t generation, const worker::WorkerGone& gone) {
  ++ends_[gone.end];
  const bool lives = state_ == State::kReady || state_ == State::kUnloading;
  if (generation != generation_ || !lives) return;  // load() sees it itself.
  enter(State::kUnloaded);
}

void Pool::settle() {
  if (state_ != State::kReady || !reservation_) return;
  link_->set_reserved(reservation_->held());
  if (link_->calls_running() > 0) used_at_ = clock_.now();
  const worker::Heartbeat& heartbeat = link_->last_heartbeat();
  reconciler_.tick(*reservation_, {.resident = heartbeat.resident,
                                   .anonymous = heartbeat.anonymous,
                                   .used_cells = heartbeat.cached_tokens,
                                   .cells = info_->cells});
}

void Pool::shut_down(Duration grace) {
  if (link_) link_->shut_down(grace);
}

bool Pool::unload(std::string_view why) {
  if (state_ != State::kReady || link_->gone() || link_->calls_running() > 0) return false;
  log::warning("unloading the model {}, which nobody uses: {}", options_.model.id, why);
  link_->shut_down(kUnloadGrace);
  enter(State::kUnloading);
  return true;
}

bool Pool::stop_load(std::string_view why) {
  if (state_ != State::kLoading || stopped_ || !link_ || link_->gone()) return false;
  log::warning("stopping the load of the model {}: {}", options_.model.id, why);
  stopped_ = LoadFailure{LoadFailure::Kind::kNotNow,
                         fmt::format("the load of model {} was stopped to keep memory free: {}",
                                     options_.model.id, why)};
  link_->kill(worker::WorkerEnd::kKilledForMemory);
  return true;
}

bool Pool::drop(std::string_view why) {
  if (state_ == State::kLoading) return stop_load(why);
  if (!link_ || link_->gone() || dropped_) return false;
  dropped_ = true;
  log::error("killing worker {} of the model {} to free its memory: {}", link_->pid(),
             options_.model.id, why);
  link_->kill(worker::WorkerEnd::kKilledForMemory);
  return true;
}

Pool::Status Pool::status() const {
  Status status;
  status.state = state_;
  status.info = info_;
  status.ends = ends_;
  if (reservation_) status.reserved = reservation_->held();
  status.reconciliation = reconciler_.status();
  status.refusals = refusals_;
  if (state_ == State::kUnloading) status.heartbeat = link_->last_heartbeat();
  if (state_ == State::kReady) {
    status.pid = link_->pid();
    status.heartbeat = link_->last_heartbeat();
    status.protections = link_->protections();
    status.uptime = clock_.now() - ready_since_;
    status.calls_running = link_->calls_running();
    if (status.calls_running == 0) status.idle_for = clock_.now() - used_at_;
  }
  return status;
}

}  // namespace pensieve::model
