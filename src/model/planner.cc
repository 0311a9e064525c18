#include "model/planner.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "model/worker_arguments.h"
#include "worker/worker_link.h"

namespace pensieve::model {
namespace {

namespace asio = boost::asio;
using worker::FrameType;

/// Reading a model's header from a slow disk; the same as a load may wait for an answer.
constexpr Duration kPlanWait = std::chrono::minutes(2);
constexpr Duration kPlannerStopGrace = std::chrono::seconds(2);
/// A search that has not ended by then goes on with what it has: the estimate is nearly linear.
constexpr int kSearchStepsMax = 4;

LoadFailure broken(std::string message) {
  return {LoadFailure::Kind::kBroken, std::move(message)};
}

template <class T>
using Planned = std::expected<T, LoadFailure>;

class Planner {
 public:
  Planner(const PlanQuestion& question, const Clock& clock)
      : question_(question), clock_(clock), book_(question.estimates_path) {
    answer_.experience =
        book_.find(estimate_key(question.model.path, question.model.engine, question.sequences_max,
                                Pool::kStepTokensMax, question.model.projector));
  }

  Planned<PlanAnswer> run();

 private:
  asio::awaitable<void> answer_all();
  asio::awaitable<Planned<void>> answer();
  asio::awaitable<Planned<engine::Plan>> plan(std::uint32_t context);
  asio::awaitable<Planned<std::uint32_t>> largest(Bytes room);
  std::uint32_t stepped(std::uint64_t tokens) const;

  const PlanQuestion& question_;
  const Clock& clock_;
  EstimateBook book_;
  asio::io_context io_{1};
  std::shared_ptr<worker::Link> link_;
  PlanAnswer answer_;
  std::uint32_t trained_ = 0;
  std::optional<LoadFailure> failure_;
};

Planned<PlanAnswer> Planner::run() {
  auto link = worker::WorkerLink::start(
      io_.get_executor(), clock_,
      {.program = question_.worker_program,
       .args = worker_arguments(question_.model, question_.floors, {}, false),
       .hang_after = kPlanWait},
      [](const worker::WorkerGone&) {});
  if (!link) return std::unexpected(broken(link.error().message));
  link_ = std::move(*link);
  asio::co_spawn(io_, answer_all(), asio::detached);
  io_.run();  // Until the worker is reaped.
  if (failure_) return std::unexpected(*failure_);
  return std::move(answer_);
}

asio::awaitable<void> Planner::answer_all() {
  const Planned<void> answered = co_await answer();
  if (!answered) failure_ = answered.error();
  link_->shut_down(kPlannerStopGrace);
}

asio::awaitable<Planned<void>> Planner::answer() {
  std::uint32_t wanted = question_.context_tokens;
  const Planned<engine::Plan> least = co_await plan(PlanAnswer::kWindowStep);
  if (!least) co_return std::unexpected(least.error());
  trained_ = least->context_train_tokens;
  if (wanted == 0) wanted = std::min(Pool::kContextTokensWanted, trained_);
  Planned<engine::Plan> whole = co_await plan(wanted);
  if (!whole) co_return std::unexpected(whole.error());
  answer_.plan = *whole;
  if (answer_.experience) {
    answer_.plan.estimate = corrected(whole->estimate, *answer_.experience);
    const Bytes plain = whole->estimate.total();
    answer_.raised = saturating_sub(answer_.plan.estimate.total(), plain);
    answer_.lowered = saturating_sub(plain, answer_.plan.estimate.total());
  }
  for (auto [room, found] : {std::pair(question_.room_now, &answer_.largest_now),
                             std::pair(question_.room_ever, &answer_.largest_ever)}) {
    if (!room) continue;
    const Planned<std::uint32_t> tokens = co_await largest(*room);
    if (!tokens) co_return std::unexpected(tokens.error());
    *found = *tokens;
  }
  co_return Planned<void>();
}

asio::awaitable<Planned<engine::Plan>> Planner::plan(std::uint32_t context) {
  const engine::LoadOptions options{.model_path = question_.model.path,
                                    .projector_path = question_.model.projector,
                                    .context_tokens = context,
                                    .sequences_max = question_.sequences_max,
                                    .step_tokens_max = Pool::kStepTokensMax,
                                    .threads = question_.threads};
  const std::string payload = worker::encode(options);
  auto call = link_->open(FrameType::kPlan, payload);
  if (!call) co_return std::unexpected(broken(call.error().message));
  const worker::CallEvent event = co_await (*call)->next(clock_.now() + kPlanWait);
  if (const auto* gone = std::get_if<worker::WorkerGone>(&event)) {
    co_return std::unexpected(broken("the worker ended: " + gone->description));
  }
  const auto* frame = std::get_if<worker::Frame>(&event);
  if (frame == nullptr) co_return std::unexpected(broken("the worker does not answer"));
  if (frame->type == FrameType::kFailed) {
    const Result<worker::Failed> failed = worker::decode_failed(frame->payload);
    co_return std::unexpected(broken(failed ? failed->message : failed.error().message));
  }
  const Result<engine::Plan> plan = worker::decode_plan(frame->payload);
  if (!plan) co_return std::unexpected(broken(plan.error().message));
  co_return *plan;
}

/// A line through two plans says where to look; each plan there makes a better line. What is
/// answered was planned itself, so it fits whatever the line says.
asio::awaitable<Planned<std::uint32_t>> Planner::largest(Bytes room) {
  const auto total = [&](const engine::Plan& plan) {
    const bool known = answer_.experience.has_value();
    return (known ? corrected(plan.estimate, *answer_.experience) : plan.estimate).total();
  };
  const Planned<engine::Plan> all = co_await plan(trained_);
  if (!all) co_return std::unexpected(all.error());
  if (total(*all) <= room) co_return trained_;
  Planned<engine::Plan> fits = co_await plan(PlanAnswer::kWindowStep);
  if (!fits) co_return std::unexpected(fits.error());
  if (total(*fits) > room) co_return 0U;
  std::uint32_t low = PlanAnswer::kWindowStep;
  std::uint32_t high = trained_;
  Bytes low_total = total(*fits);
  Bytes high_total = total(*all);
  for (int step = 0; step < kSearchStepsMax && high - low > PlanAnswer::kWindowStep; ++step) {
    const double share = static_cast<double>(saturating_sub(room, low_total).count()) /
                         static_cast<double>(saturating_sub(high_total, low_total).count());
    std::uint32_t middle = stepped(low + static_cast<std::uint64_t>(share * (high - low)));
    middle = std::clamp(middle, low + PlanAnswer::kWindowStep, high - 1);
    const Planned<engine::Plan> tried = co_await plan(middle);
    if (!tried) co_return std::unexpected(tried.error());
    (total(*tried) <= room ? low : high) = middle;
    (total(*tried) <= room ? low_total : high_total) = total(*tried);
  }
  co_return low;
}

std::uint32_t Planner::stepped(std::uint64_t tokens) const {
  return static_cast<std::uint32_t>(tokens / PlanAnswer::kWindowStep * PlanAnswer::kWindowStep);
}

}  // namespace

std::expected<PlanAnswer, LoadFailure> plan_model(const PlanQuestion& question,
                                                  const Clock& clock) {
  return Planner(question, clock).run();
}

}  // namespace pensieve::model
