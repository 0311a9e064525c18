#include "worker/batch_loop.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"

namespace pensieve::worker {
namespace {

using engine::Token;

std::uint32_t size32(const std::vector<Token>& tokens) {
  return static_cast<std::uint32_t>(tokens.size());
}

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

BatchLoop::BatchLoop(engine::Engine& engine, JobEvents& events, const Clock& clock,
                     const Options& options, PrefixStore* store, PrefixExchange* exchange)
    : engine_(engine),
      store_(store),
      events_(events),
      clock_(clock),
      options_(options),
      chunk_size_(options.step_tokens_max),
      limits_{.sequences_max = options.sequences_max,
              .step_tokens_max = options.step_tokens_max,
              .caches_grow = true,
              .parked_bytes_max = {},
              .stored_bytes_max = {}},
      sequences_(engine, options.sequences_max, exchange) {
  PENSIEVE_CHECK(options.sequences_max > 0 && options.context_tokens > 0);
  PENSIEVE_CHECK(options.step_tokens_max > options.sequences_max);
  publish_stats(false);
}

template <class Change>
void BatchLoop::command(const Change& change) {
  {
    const std::lock_guard lock(mutex_);
    change();
  }
  wake_.notify_one();
}

Result<void> BatchLoop::submit(Job job) {
  PENSIEVE_CHECK(!job.prompt.empty());
  {
    const std::lock_guard lock(mutex_);
    if (stats_.waiting + commands_.jobs.size() + commands_.embeds.size() >= options_.waiting_max) {
      return fail(Code::kUnavailable,
                  fmt::format("{} requests are waiting already", options_.waiting_max));
    }
    commands_.jobs.push_back(std::move(job));
  }
  wake_.notify_one();
  return {};
}

void BatchLoop::cancel(std::uint32_t id) {
  command([&] { commands_.cancels.push_back(id); });
}

void BatchLoop::clear_cache(std::uint32_t id, bool stored_too) {
  command([&] { commands_.clears.emplace_back(id, stored_too); });
}

void BatchLoop::resize(std::uint32_t cells) {
  command([&] { commands_.resizes.push_back(cells); });
}

void BatchLoop::refuse_cells(ResizeRefused refusal) {
  command([&] { commands_.refusal = std::move(refusal); });
}

void BatchLoop::set_limits(const Limits& limits) {
  command([&] { commands_.limits = limits; });
}

void BatchLoop::look_again() {
  command([&] { commands_.look_again |= stats_.lacks_cells || stats_.is_restless; });
}

void BatchLoop::wake() {
  command([&] { commands_.look_again = true; });
}

void BatchLoop::stop() {
  command([&] { stopping_ = true; });
}

BatchLoop::Stats BatchLoop::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.waiting += static_cast<std::uint32_t>(commands_.jobs.size() + commands_.embeds.size());
  stats.busy = stats.busy || !commands_.empty();
  return stats;
}

Result<void> BatchLoop::run() {
  while (true) {
    const Result<bool> worked = turn();
    if (!worked) return std::unexpected(worked.error());
    std::unique_lock lock(mutex_);
    if (!*worked) wake_.wait(lock, [&] { return stopping_ || !commands_.empty(); });
    if (stopping_) return {};
  }
}

Result<bool> BatchLoop::turn() {
  if (Result<void> taken = take_commands(); !taken) return std::unexpected(taken.error());
  end_starved();
  announce_accepted();
  start_waiting();
  ask_for_cells();
  sequences_.rest(clock_.now());
  publish_stats(false);
  const Result<bool> embedded = embed_next();
  if (!embedded) return embedded;
  const Result<bool> worked = step();
  const bool has_work = sequences_.running() > 0 || !waiting_.empty();
  publish_stats(worked && !*worked && has_work);
  return worked && *embedded ? Result<bool>(true) : worked;
}

Result<void> BatchLoop::take_commands() {
  Commands taken;
  {
    const std::lock_guard lock(mutex_);
    std::swap(taken, commands_);
    stats_.waiting += static_cast<std::uint32_t>(taken.jobs.size() + taken.embeds.size());
    stats_.busy = true;
  }
  if (taken.limits) limits_ = *taken.limits;
  if (taken.refusal) demand_.refused(*std::move(taken.refusal));
  if (Result<void> resized = apply_resizes(taken.resizes); !resized) return resized;
  // Jobs first: a cancel always comes after its job.
  for (Job& job : taken.jobs) accept(std::move(job));
  for (EmbedJob& job : taken.embeds) embeds_.push_back(std::move(job));
  for (const std::uint32_t id : taken.cancels) apply_cancel(id);
  for (const auto& [id, stored_too] : taken.clears) events_.cleared(id, free_memory(stored_too));
  return {};
}

void BatchLoop::accept(Job job) {
  const std::uint32_t id = job.id;
  if (const std::optional<Refused> refused = events_.check_memory([this] { free_memory(false); })) {
    events_.refused(id, *refused);
    after_request(id);
    return;
  }
  waiting_.push_back(std::make_unique<Running>(std::move(job), ++counter_));
}

/// Only with cells for its prompt: until then a refusal can still be an honest status, while soon
/// after this the gateway begins to answer.
void BatchLoop::announce_accepted() {
  for (const std::unique_ptr<Running>& running : waiting_) {
    if (running->is_accepted || is_too_large(*running)) continue;
    running->is_accepted = true;
    events_.accepted(running->job.id, {size32(running->job.prompt)});
  }
}

void BatchLoop::apply_cancel(std::uint32_t id) {
  if (cancel_embed(id)) return;
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const auto& running) { return running->job.id == id; });
  if (waiting != waiting_.end()) {
    waiting_.erase(waiting);
    after_request(id);
    return;
  }
  for (Sequence& sequence : sequences_.all()) {
    if (sequence.running && sequence.running->job.id == id) {
      // What is computed stays: a client that sends the request again goes on from there.
      leave(sequence);
      return;
    }
  }
}

/// In their order; but who waits for cells that nobody has does not hold up those that have room.
void BatchLoop::start_waiting() {
  for (std::size_t i = 0; i < waiting_.size();) {
    Running& next = *waiting_[i];
    if (is_too_large(next)) {
      if (!next.short_since) next.short_since = clock_.now();
      ++i;
      continue;
    }
    next.short_since.reset();
    if (sequences_.must_wait(next)) {
      ++i;
      continue;
    }
    if (sequences_.running() >= running_max() || !fits_beside_running(next)) return;
    std::unique_ptr<Running> taken = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    start(std::move(taken));
  }
}

bool BatchLoop::fits_beside_running(const Running& next) {
  if (sequences_.running() == 0) return true;
  // Without some room to grow for each, the newcomer would be put out again at once.
  Sequences::Match match = sequences_.best_match(next.tokens);
  // What an idle sequence holds counts like new: it is not among the cells of those that run.
  if (match.sequence != nullptr && !match.sequence->running) match = {};
  const std::uint64_t wanted = std::uint64_t{sequences_.cells_of_running()} +
                               sequences_.pending_tokens() +
                               sequences_.new_cells(next.tokens, match) + room_to_grow();
  return wanted <= engine_.cells();
}

void BatchLoop::start(std::unique_ptr<Running> running) {
  const auto [target, kept] = sequences_.place(running->tokens);
  const std::uint32_t id = running->job.id;
  const Result<void> ready =
      engine_.set_sampling(target->id, running->job.sampling, running->tokens);
  if (!ready) {
    events_.failed(id, {ready.error().code, ready.error().message});
    after_request(id);
    return;
  }
  engine_.set_shape(target->id, running->job.shape,
                    std::span(running->tokens).subspan(running->job.prompt.size()));
  engine_.set_images(target->id, running->job.images);
  if (!running->is_started) {
    running->is_started = true;
    running->started_at = clock_.now();
    events_.started(id, {kept});
  }
  target->running = std::move(running);
}

/// A picture takes seconds; between two of them everybody else gets a step.
StepPlan BatchLoop::plan_step() {
  if (image_is_next_) {
    StepPlan image = plan_image(sequences_.all());
    if (!image.inputs.empty()) return image;
  }
  StepPlan plan = plan_decoding(sequences_.all());
  const std::uint32_t prompt_budget =
      std::min({chunk_size_.tokens(plan.decoding > 0), options_.step_tokens_max - plan.decoding,
                std::max(limits_.step_tokens_max, 1U)});
  add_prompts(sequences_.all(), prompt_budget, plan);
  return plan.inputs.empty() ? plan_image(sequences_.all()) : plan;
}

Result<bool> BatchLoop::step() {
  const StepPlan plan = plan_step();
  if (plan.inputs.empty()) return false;  // Who waits has no cells, and gets them by a command.
  const bool is_image = engine::is_image(plan.inputs[0].tokens[0]);
  image_is_next_ = !is_image;

  std::vector<Token> sampled;
  const TimePoint began = clock_.now();
  const Result<void> stepped = engine_.step(plan.inputs, sampled);
  if (!stepped) return end_step(plan, stepped.error());
  std::uint32_t prompt_tokens = 0;
  for (std::size_t i = 0; i < plan.inputs.size(); ++i) {
    const std::span<const Token> tokens = plan.inputs[i].tokens;
    if (tokens.size() > 1 && !is_image) prompt_tokens += static_cast<std::uint32_t>(tokens.size());
    // They lie in `running->tokens`; copied before take_sampled() may grow that.
    plan.members[i]->held.insert(plan.members[i]->held.end(), tokens.begin(), tokens.end());
    plan.members[i]->running->short_since.reset();
  }
  chunk_size_.observe(prompt_tokens, clock_.now() - began);

  std::size_t next = 0;
  for (std::size_t i = 0; i < plan.inputs.size(); ++i) {
    if (!plan.inputs[i].samples) continue;
    PENSIEVE_CHECK(next < sampled.size());
    take_sampled(*plan.members[i], sampled[next++]);
  }
  return true;
}

/// What becomes of a step that failed; returns what step() does.
Result<bool> BatchLoop::end_step(const StepPlan& plan, const Error& error) {
  Sequence& first = *plan.members.front();
  if (error.code == Code::kOutOfMemory) return make_room(first);
  if (error.code != Code::kInvalidArgument) return std::unexpected(error);
  // A picture that cannot be computed is its request's affair.
  events_.failed(first.running->job.id, {error.code, error.message});
  leave(first);
  return true;
}

/// There were no cells for the step of `member` and others. Returns whether another try is worth
/// it now; if not, cells or time have to come first.
bool BatchLoop::make_room(Sequence& member) {
  // A grant that is under way costs nobody anything.
  if (demand_.awaits_answer(clock_.now())) return false;
  if (Sequence* const idle = sequences_.oldest_idle()) {
    sequences_.let_go(*idle);
    return true;
  }
  if (sequences_.running() > 1) {
    Sequence& newest = *sequences_.newest_running();
    log::info("request {} waits: the KV cache of {} cells is full", newest.running->job.id,
              engine_.cells());
    waiting_.push_front(std::move(newest.running));
    sequences_.let_go(newest);
    return true;
  }
  if (may_grow()) {
    if (!member.running->short_since) member.running->short_since = clock_.now();
    return false;
  }
  end_with(member, StopCause::kWindowFull);  // It alone fills all there can be.
  return true;
}

void BatchLoop::take_sampled(Sequence& sequence, Token token) {
  Running& running = *sequence.running;
  if (running.job.output_tokens_max == 0) {  // The prompt was all that was wanted.
    end_with(sequence, StopCause::kTokenLimit);
    return;
  }
  if (running.output_tokens == 0) running.first_token_at = clock_.now();
  if (engine_.ends_generation(token)) {
    end_with(sequence, StopCause::kEndOfTurn);
    return;
  }
  running.tokens.push_back(token);
  ++running.output_tokens;
  std::string piece;
  engine_.append_piece(token, piece);
  const bool was_thinking = running.answer.is_thinking();
  for (const engine::AnswerPiece& said : running.answer.push(piece)) {
    events_.said(running.job.id, said);
  }
  // The tokens that open and close the thoughts belong to them.
  if (was_thinking || running.answer.is_thinking()) ++running.thinking_tokens;
  if (running.answer.met()) {
    end_with(sequence, StopCause::kStopSequence);
  } else if (running.output_tokens >= running.job.output_tokens_max) {
    end_with(sequence, StopCause::kTokenLimit);
  } else if (running.tokens.size() >= options_.context_tokens) {
    end_with(sequence, StopCause::kWindowFull);
  }
}

void BatchLoop::end_with(Sequence& sequence, StopCause cause) {
  Running& running = *sequence.running;
  for (const engine::AnswerPiece& said : running.answer.finish()) {
    events_.said(running.job.id, said);
  }
  if (running.answer.met()) cause = StopCause::kStopSequence;
  const TimePoint now = clock_.now();
  const TimePoint first = running.output_tokens > 0 ? running.first_token_at : now;
  events_.done(running.job.id, {.cause = cause,
                                .stop_sequence = running.answer.met().value_or(""),
                                .output_tokens = running.output_tokens,
                                .thinking_tokens = running.thinking_tokens,
                                .prefill_seconds = seconds_between(running.started_at, first),
                                .decode_seconds = seconds_between(first, now)});
  leave(sequence);
}

void BatchLoop::leave(Sequence& sequence) {
  const std::uint32_t id = sequence.running->job.id;
  engine_.set_images(sequence.id, nullptr);
  engine_.set_shape(sequence.id, nullptr, {});  // What follows the answer takes memory.
  sequence.running.reset();
  sequence.used_at = ++counter_;
  sequence.idle_since = clock_.now();
  sequence.is_stored = false;
  after_request(id);
}

void BatchLoop::after_request(std::uint32_t id) {
  engine_.clear_cache();
  events_.ended(id);
}

Cleared BatchLoop::free_memory(bool stored_too) {
  Cleared cleared;
  cleared.dropped_tokens = sequences_.forget_idle();
  if (store_ != nullptr) {
    const PrefixStore::Cleared outside = store_->clear(stored_too);
    cleared.dropped_tokens += outside.parked_tokens;
    cleared.freed = outside.parked_bytes;
    cleared.stored = outside.stored_bytes;
  }
  cleared.freed = Bytes(cleared.freed.count() + engine_.clear_cache().count());
  if (sequences_.running() == 0) {
    cleared.freed = Bytes(cleared.freed.count() + engine_.release_buffers().count());
  }
  return cleared;
}

void BatchLoop::publish_stats(bool lacks_cells) {
  Stats stats;
  stats.waiting = static_cast<std::uint32_t>(waiting_.size() + embeds_.size());
  stats.running = sequences_.running();
  stats.cached_tokens = sequences_.held_tokens();
  stats.cells = engine_.cells();
  stats.cells_used = sequences_.cells_used();
  stats.lacks_cells = lacks_cells;
  stats.is_restless = sequences_.is_restless();
  stats.busy = !lacks_cells && (stats.running > 0 || stats.waiting > 0);
  {
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  const std::pair load(stats.running, stats.waiting);
  if (load != published_load_) {
    published_load_ = load;
    events_.load_changed();
  }
}

}  // namespace pensieve::worker
