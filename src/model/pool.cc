#include "model/pool.h"

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
#include "model/worker_arguments.h"

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
/// The same for one that is idle: it stores what conversations rest there, within a bound of its
/// own, and what takes longer hangs.
constexpr Duration kUnloadGrace = std::chrono::seconds(2);

LoadFailure broken(std::string message) {
  return {LoadFailure::Kind::kBroken, std::move(message)};
}

/// A worker that the kernel shot while loading may fit another time, and one that somebody shot
/// says nothing of the model; a crash will not heal.
LoadFailure::Kind kind_of(worker::WorkerEnd end) {
  switch (end) {
    case worker::WorkerEnd::kOutOfMemory:
    case worker::WorkerEnd::kKilledByKernel:
    case worker::WorkerEnd::kKilledForMemory:
      return LoadFailure::Kind::kNotNow;
    case worker::WorkerEnd::kKilled:
      return LoadFailure::Kind::kInterrupted;
    case worker::WorkerEnd::kClean:
    case worker::WorkerEnd::kCrashed:
    case worker::WorkerEnd::kDeadline:
    case worker::WorkerEnd::kProtocolError:
      break;
  }
  return LoadFailure::Kind::kBroken;
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
      reconciler_(ledger, options_.estimates_path) {}

Pool::~Pool() = default;

void Pool::enter(State state) {
  state_ = state;
  if (state == State::kReady) {
    ready_since_ = used_at_ = clock_.now();
    trend_ = {};
    given_ = 0;
    leak_logged_ = false;
  }
  if (state == State::kUnloaded) {
    link_.reset();
    budget_.reset();
    parked_.reset();
    limits_.reset();
    spilling_ = false;
    reconciler_.end();
    stopped_.reset();
    dropped_ = false;
  }
  for (Timer* timer : waiting_) timer->cancel();
}

/// A timer that the next change of state cancels.
class Pool::Waiting {
 public:
  Waiting(Pool& pool, TimePoint until)
      : pool_(pool),
        timer_(pool.executor_, until),
        place_(pool.waiting_.insert(pool.waiting_.end(), &timer_)) {}
  ~Waiting() { pool_.waiting_.erase(place_); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  Timer& timer() { return timer_; }

 private:
  Pool& pool_;
  Timer timer_;
  const std::list<Timer*>::iterator place_;
};

asio::awaitable<Pool::Acquired> Pool::acquire() {
  Wait wait;
  while (true) {
    std::optional<Acquired> acquired = co_await acquire_by(TimePoint::max(), wait);
    if (acquired) co_return *std::move(acquired);
  }
}

asio::awaitable<std::optional<Pool::Acquired>> Pool::acquire_by(TimePoint until, Wait& wait) {
  while (true) {
    if (state_ == State::kReady && link_->usable() && !dropped_) {
      used_at_ = clock_.now();
      ++given_;
      co_return link_;
    }
    if (state_ == State::kUnloaded) {
      if (failure_ && (wait.tried || (clock_.now() < retry_not_before_ && !may_fit_now()))) {
        co_return std::unexpected(*failure_);
      }
      wait.tried = true;
      enter(State::kLoading);
      asio::co_spawn(executor_, load_and_tell(), asio::detached);
      continue;  // It runs at once, and may have ended without a wait: a missing program.
    }
    // Who waited for a load shares its outcome, also a bad one.
    if (state_ == State::kLoading) wait.tried = true;
    if (clock_.now() >= until) co_return std::nullopt;
    // Loading, unloading, or ready with a worker whose end is not classified yet: all change soon.
    Waiting waiting(*this, until);
    co_await waiting.timer().async_wait(asio::as_tuple(asio::use_awaitable));
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
    // Before the first request, which may find on disk what it begins with: the worker uses neither
    // memory nor disk for prefixes until it is told how much.
    follow_limits(rung_, monitor_.status());
    co_return;
  }
  failure_ = loaded.error();
  total_at_failure_ = monitor_.status().total;
  if (failure_->kind == LoadFailure::Kind::kNotNow) ++refusals_;
  log::warning("the model {} is not loaded: {}", options_.model.id, failure_->message);
  retry_not_before_ = {};
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
                                   options_.sequences_max, kStepTokensMax,
                                   options_.model.projector));
  auto link = options_.start_worker(
      executor_, clock_,
      {.program = options_.worker_program,
       .args = worker_arguments(options_.model, options_.floors, options_.prefix_directory,
                                options_.debug_log),
       .hang_after = std::max(options_.hang_after, kPlanWaitLeast),
       .on_frame = [this, generation](const Frame& frame) { return on_frame(generation, frame); }},
      [this, generation](const worker::WorkerGone& gone) { on_worker_end(generation, gone); });
  if (!link) co_return std::unexpected(broken(link.error().message));
  link_ = std::move(*link);
  auto rungs = co_await plan_rungs();
  if (!rungs) co_return std::unexpected(rungs.error());
  const worker::Hello* hello = link_->hello();
  if (hello == nullptr || hello->version != PENSIEVE_VERSION) {
    co_return std::unexpected(broken(fmt::format(
        "{} is version {}, not {}; install both programs together", options_.worker_program,
        hello == nullptr ? "unknown" : hello->version, PENSIEVE_VERSION)));
  }
  co_return co_await reserve_and_load(std::move(*rungs));
}

asio::awaitable<std::expected<Frame, LoadFailure>> Pool::answer(worker::Call& call) {
  while (true) {
    worker::CallEvent event = co_await call.next(clock_.now() + kAnswerWait);
    if (const auto* gone = std::get_if<worker::WorkerGone>(&event)) {
      co_return std::unexpected(LoadFailure{
          kind_of(gone->end), "the worker ended while it loaded the model: " + gone->description});
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

asio::awaitable<std::expected<engine::Plan, LoadFailure>> Pool::plan(std::uint32_t context,
                                                                     std::uint32_t cells) {
  const std::string payload = worker::encode(load_options(context, cells, cells));
  auto call = link_->open(FrameType::kPlan, payload);
  if (!call) co_return std::unexpected(broken(call.error().message));
  auto frame = co_await answer(**call);
  if (!frame) co_return std::unexpected(frame.error());
  Result<engine::Plan> plan = worker::decode_plan(frame->payload);
  if (!plan) co_return std::unexpected(broken(plan.error().message));
  plan->estimate = reconciler_.correct(plan->estimate);
  co_return *plan;
}

/// Rungs double from kCellsFirst to the window, and from there to what all sequences could hold, as
/// far as the engine has a use for more: a model that gives embeddings has one number of cells.
asio::awaitable<std::expected<Pool::Rungs, LoadFailure>> Pool::plan_rungs() {
  std::uint32_t window = options_.context_tokens;
  const std::uint32_t asked = window > 0 ? window : kContextTokensWanted;
  auto first = co_await plan(asked, kCellsFirst);
  if (!first) co_return std::unexpected(first.error());
  if (window == 0) window = std::min(kContextTokensWanted, first->context_train_tokens);
  std::vector<engine::Plan> plans;
  for (std::uint32_t cells = std::min(kCellsFirst, window);;
       cells = static_cast<std::uint32_t>(std::min<std::uint64_t>(2ULL * cells, window))) {
    auto next = co_await plan(window, cells);
    if (!next) co_return std::unexpected(next.error());
    if (!plans.empty() && next->cells <= plans.back().cells) break;
    plans.push_back(*next);
    if (cells >= window) break;
  }
  auto rungs = choose_window(std::move(plans));
  if (!rungs) co_return std::unexpected(rungs.error());
  const std::uint64_t most = std::uint64_t{rungs->window} * options_.sequences_max;
  for (std::uint64_t cells = 2ULL * rungs->window; cells <= most; cells *= 2) {
    auto next = co_await plan(rungs->window, static_cast<std::uint32_t>(cells));
    if (!next) co_return std::unexpected(next.error());
    if (next->cells <= rungs->plans.back().cells || !fits_ever(*next)) break;
    rungs->plans.push_back(*next);
  }
  co_return std::move(*rungs);
}

std::expected<Pool::Rungs, LoadFailure> Pool::choose_window(std::vector<engine::Plan> plans) const {
  const engine::Plan& wanted = plans.back();
  if (!monitor_.check().total) {
    return std::unexpected(
        too_large(wanted, "the available memory cannot be read now", LoadFailure::Kind::kNotNow));
  }
  if (options_.context_tokens > 0 && !fits_ever(wanted)) {
    return std::unexpected(
        too_large(wanted, fmt::format("it takes {}GB", memory::gb_text(wanted.estimate.total())),
                  LoadFailure::Kind::kNever));
  }
  // The first is tried whatever it takes: its refusal has the numbers.
  while (plans.size() > 1 && !fits_ever(plans.back())) plans.pop_back();
  const std::uint32_t window = std::min(plans.back().cells, plans.back().context_tokens);
  return Rungs{std::move(plans), window};
}

/// "Never" was said of a limit that has been raised since: there is no point in waiting then.
bool Pool::may_fit_now() const {
  const std::optional<Bytes> total = monitor_.check().total;
  return failure_->kind == LoadFailure::Kind::kNever && total && total_at_failure_ &&
         *total > *total_at_failure_;
}

/// Whether the whole machine, or what encloses us, would be enough. What earlier runs took above
/// the estimate does not count: it says "not now", never "never".
bool Pool::fits_ever(const engine::Plan& plan) const {
  const std::optional<Bytes> total = monitor_.status().total;
  const Bytes planned = saturating_sub(plan.estimate.total(), reconciler_.status().raised);
  const std::optional<Bytes> needed = checked_add(planned, options_.floors.critical);
  return total && needed && *needed <= *total;
}

asio::awaitable<Pool::Loaded> Pool::reserve_and_load(Rungs rungs) {
  const engine::Plan first = rungs.plans.front();
  const std::uint32_t cells_max = rungs.plans.back().cells;
  budget_.emplace(ledger_, options_.floors, std::move(rungs.plans), rungs.window);
  if (auto reserved = reserve(first); !reserved) co_return std::unexpected(reserved.error());
  link_->set_reserved(budget_->reserved());
  log::info(
      "loading {} with a window of {} tokens and {} cells of at most {}; reserved {}GB (weights "
      "{}GB, KV {}GB, compute {}GB, process {}GB, images {}GB, grammars {}GB)",
      options_.model.id, rungs.window, first.cells, cells_max,
      memory::gb_text(first.estimate.total()),
      memory::gb_text(
          Bytes(first.estimate.weights_mapped.count() + first.estimate.weights_copied.count())),
      memory::gb_text(first.estimate.kv), memory::gb_text(first.estimate.compute),
      memory::gb_text(first.estimate.process), memory::gb_text(first.estimate.images),
      memory::gb_text(first.estimate.grammars));
  // One tensor of a large model may take minutes to come from a slow disk.
  link_->set_hang_after(kAnswerWait);
  const std::string payload = worker::encode(load_options(rungs.window, first.cells, cells_max));
  auto call = link_->open(FrameType::kLoad, payload);
  if (!call) co_return std::unexpected(broken(call.error().message));
  auto frame = co_await answer(**call);
  if (!frame) co_return std::unexpected(frame.error());
  Result<engine::ModelInfo> info = worker::decode_model_info(frame->payload);
  if (!info) co_return std::unexpected(broken(info.error().message));
  info_ = std::move(*info);
  reconciler_.begin(fmt::format("worker {}", link_->pid()), first.estimate.weights_mapped);
  budget_->loaded(info_->cells);
  link_->set_hang_after(options_.hang_after);
  log::info("loaded {} ({}), worker {}", options_.model.id, info_->description, link_->pid());
  co_return Loaded();
}

std::expected<void, LoadFailure> Pool::reserve(const engine::Plan& first) {
  const memory::Monitor::Status memory = monitor_.check();
  const std::optional<Bytes> available = memory.promisable();
  if (!available) {
    return std::unexpected(
        too_large(first, "the available memory cannot be read now", LoadFailure::Kind::kNotNow));
  }
  const auto reserved = budget_->reserve_first(*available);
  if (reserved) return {};
  const Bytes needed = first.estimate.total();
  const Bytes uncorrected = saturating_sub(needed, reconciler_.status().raised);
  if (uncorrected < needed &&
      uncorrected <= ledger_.largest_that_fits(*available, options_.floors.critical)) {
    reconciler_.doubt();
  }
  return std::unexpected(
      too_large(first, memory::describe(reserved.error()),
                fits_ever(first) ? LoadFailure::Kind::kNotNow : LoadFailure::Kind::kNever));
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

engine::LoadOptions Pool::load_options(std::uint32_t context, std::uint32_t cells,
                                       std::uint32_t cells_max) const {
  return {.model_path = options_.model.path,
          .projector_path = options_.model.projector,
          .context_tokens = context,
          .cells = cells,
          .cells_max = cells_max,
          .sequences_max = options_.sequences_max,
          .step_tokens_max = kStepTokensMax,
          .threads = options_.threads};
}

void Pool::on_worker_end(std::uint64_t generation, const worker::WorkerGone& gone) {
  ++ends_[gone.end];
  const bool lives = state_ == State::kReady || state_ == State::kUnloading;
  if (generation != generation_ || !lives) return;  // load() sees it itself.
  enter(State::kUnloaded);
}

void Pool::settle() {
  if (state_ != State::kReady || !budget_) return;
  if (link_->calls_running() > 0) used_at_ = clock_.now();
  link_->set_reserved(reserved());
  const worker::Heartbeat& heartbeat = link_->last_heartbeat();
  reconciler_.tick(budget_->reservation(),
                   {.resident = heartbeat.resident,
                    .anonymous = saturating_sub(heartbeat.anonymous, heartbeat.parked_bytes),
                    .used_cells = heartbeat.cells_used,
                    // Only a cache that cannot grow any more tells what a full one takes.
                    .cells = budget_->cells_max()});
  if (parked_) parked_->settle(std::min(heartbeat.parked_bytes, parked_->held()));
  watch_trend();
}

Bytes Pool::reserved() const {
  const Bytes own = budget_ ? budget_->reserved() : Bytes();
  const std::optional<Bytes> both = checked_add(own, parked_ ? parked_->held() : Bytes());
  PENSIEVE_CHECK(both.has_value());  // The ledger has added them up already.
  return *both;
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
  status.reserved = reserved();
  if (parked_) status.parked_reserved = parked_->held();
  if (limits_) status.limits = *limits_;
  status.reconciliation = reconciler_.status();
  status.refusals = refusals_;
  status.recycled = recycled_;
  if (state_ == State::kUnloading) status.heartbeat = link_->last_heartbeat();
  if (state_ == State::kReady) {
    status.pid = link_->pid();
    status.heartbeat = link_->last_heartbeat();
    status.protections = link_->protections();
    status.uptime = clock_.now() - ready_since_;
    status.cells = budget_->cells();
    status.cells_max = budget_->cells_max();
    status.spare_cells = budget_->spare(status.heartbeat.cells_used);
    status.owed = trend_.owed();
    status.leaks = trend_.leak().has_value();
    status.calls_running = link_->calls_running();
    if (status.calls_running == 0) status.idle_for = clock_.now() - used_at_;
  }
  return status;
}

}  // namespace pensieve::model
