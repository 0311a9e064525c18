#include "worker/batch_loop.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"

namespace pensieve::worker {
namespace {

using engine::StepInput;
using engine::Token;

std::uint32_t common_prefix(const std::vector<Token>& a, const std::vector<Token>& b) {
  const auto ends = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::uint32_t>(ends.first - a.begin());
}

std::uint32_t size32(const std::vector<Token>& tokens) {
  return static_cast<std::uint32_t>(tokens.size());
}

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

BatchLoop::Running::Running(Job taken, std::uint64_t place)
    : job(std::move(taken)), tokens(job.prompt), order(place), filter(job.stop_sequences) {}

BatchLoop::BatchLoop(engine::Engine& engine, JobEvents& events, const Clock& clock,
                     const Options& options)
    : engine_(engine),
      events_(events),
      clock_(clock),
      options_(options),
      chunk_size_(options.step_tokens_max) {
  PENSIEVE_CHECK(options.sequences_max > 0 && options.context_tokens > 0);
  PENSIEVE_CHECK(options.step_tokens_max > options.sequences_max);
  sequences_.resize(options.sequences_max);
  for (std::uint32_t i = 0; i < options.sequences_max; ++i) sequences_[i].id = i;
}

Result<void> BatchLoop::submit(Job job) {
  PENSIEVE_CHECK(!job.prompt.empty());
  {
    const std::lock_guard lock(mutex_);
    if (stats_.waiting + commands_.jobs.size() >= options_.waiting_max) {
      return fail(Code::kUnavailable,
                  fmt::format("{} requests are waiting already", options_.waiting_max));
    }
    commands_.jobs.push_back(std::move(job));
  }
  wake_.notify_one();
  return {};
}

void BatchLoop::cancel(std::uint32_t id) {
  {
    const std::lock_guard lock(mutex_);
    commands_.cancels.push_back(id);
  }
  wake_.notify_one();
}

void BatchLoop::clear_cache(std::uint32_t id) {
  {
    const std::lock_guard lock(mutex_);
    commands_.clears.push_back(id);
  }
  wake_.notify_one();
}

void BatchLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
}

BatchLoop::Stats BatchLoop::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.waiting += static_cast<std::uint32_t>(commands_.jobs.size());
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
  take_commands();
  start_waiting();
  publish_stats();
  const Result<bool> worked = step();
  publish_stats();
  return worked;
}

void BatchLoop::take_commands() {
  Commands taken;
  {
    const std::lock_guard lock(mutex_);
    std::swap(taken, commands_);
    stats_.waiting += static_cast<std::uint32_t>(taken.jobs.size());
    stats_.busy = true;
  }
  // Jobs first: a cancel always comes after its job.
  for (Job& job : taken.jobs) accept(std::move(job));
  for (const std::uint32_t id : taken.cancels) apply_cancel(id);
  for (const std::uint32_t id : taken.clears) events_.cleared(id, free_memory());
}

void BatchLoop::accept(Job job) {
  const std::uint32_t id = job.id;
  if (const std::optional<Refused> refused = events_.check_memory([this] { free_memory(); })) {
    events_.refused(id, *refused);
    after_request(id);
    return;
  }
  events_.accepted(id, {size32(job.prompt)});
  waiting_.push_back(std::make_unique<Running>(std::move(job), ++counter_));
}

void BatchLoop::apply_cancel(std::uint32_t id) {
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const auto& running) { return running->job.id == id; });
  if (waiting != waiting_.end()) {
    waiting_.erase(waiting);
    after_request(id);
    return;
  }
  for (Sequence& sequence : sequences_) {
    if (sequence.running && sequence.running->job.id == id) {
      // What is computed stays: a client that sends the request again goes on from there.
      leave(sequence);
      return;
    }
  }
}

void BatchLoop::start_waiting() {
  while (!waiting_.empty()) {
    std::uint64_t cells = 0;
    bool any_running = false;
    for (const Sequence& sequence : sequences_) {
      if (!sequence.running) continue;
      any_running = true;
      cells += sequence.running->tokens.size();
    }
    // Without some room to grow for each, the newcomer would be put out again at once.
    const std::uint64_t growth = std::min<std::uint64_t>(256, options_.context_tokens / 8);
    const std::uint64_t wanted = cells + waiting_.front()->tokens.size() + growth;
    if (any_running && wanted > options_.context_tokens) return;
    if (free_sequence() == nullptr) return;
    std::unique_ptr<Running> next = std::move(waiting_.front());
    waiting_.pop_front();
    start(std::move(next));
  }
}

BatchLoop::Sequence* BatchLoop::free_sequence() {
  Sequence* found = nullptr;
  for (Sequence& sequence : sequences_) {
    if (sequence.running) continue;
    if (sequence.held.empty()) return &sequence;
    if (found == nullptr || sequence.used_at < found->used_at) found = &sequence;
  }
  return found;
}

void BatchLoop::start(std::unique_ptr<Running> running) {
  Sequence* best = nullptr;
  std::uint32_t common = 0;
  // The last token is always processed: its logits give the first new token.
  const std::uint32_t reusable = size32(running->tokens) - 1;
  for (Sequence& sequence : sequences_) {
    const std::uint32_t length = std::min(common_prefix(running->tokens, sequence.held), reusable);
    if (length > common) {
      best = &sequence;
      common = length;
    }
  }
  Sequence* target = free_sequence();
  // Continuing in place forgets the rest of what was held; worth it only when little is lost.
  if (best != nullptr && !best->running && std::uint64_t{common} * 2 >= best->held.size()) {
    target = best;
  }
  std::uint32_t kept = place_prefix(*target, best, common);
  if (kept == 0 && best != nullptr && best != target && !best->running) {
    target = best;  // The engine cannot share, but it can continue in place.
    kept = place_prefix(*target, best, common);
  }

  const std::uint32_t id = running->job.id;
  target->held.assign(running->tokens.begin(), running->tokens.begin() + kept);
  const Result<void> ready =
      engine_.set_sampling(target->id, running->job.sampling, running->tokens);
  if (!ready) {
    events_.failed(id, {ready.error().code, ready.error().message});
    after_request(id);
    return;
  }
  if (!running->announced) {
    running->announced = true;
    running->started_at = clock_.now();
    events_.started(id, {kept});
  }
  target->running = std::move(running);
}

std::uint32_t BatchLoop::place_prefix(Sequence& target, Sequence* best, std::uint32_t common) {
  std::uint32_t kept = 0;
  if (best == &target || best == nullptr) {
    kept = engine_.keep_prefix(target.id, common);
  } else {
    kept = engine_.share_prefix(best->id, target.id, common);
    if (kept == 0) engine_.keep_prefix(target.id, 0);
  }
  PENSIEVE_CHECK(kept <= common);
  target.held.resize(std::min<std::size_t>(target.held.size(), kept));
  return kept;
}

void BatchLoop::plan_step(std::vector<StepInput>& inputs, std::vector<Sequence*>& members) {
  std::vector<Sequence*> prompts;
  for (Sequence& sequence : sequences_) {
    if (!sequence.running) continue;
    const std::size_t pending = sequence.running->tokens.size() - sequence.held.size();
    if (pending > 1) {
      prompts.push_back(&sequence);
      continue;
    }
    inputs.push_back({sequence.id, std::span(sequence.running->tokens).last(1), true});
    members.push_back(&sequence);
  }
  if (prompts.empty()) return;

  const auto decoding = static_cast<std::uint32_t>(inputs.size());
  std::uint32_t budget =
      std::min(chunk_size_.tokens(decoding > 0), options_.step_tokens_max - decoding);
  // The oldest prompt gets half of each step, so that it always gets on; the rest goes to the
  // shortest first, so that a short question does not wait for a long document.
  const auto pending_of = [](const Sequence* sequence) {
    return static_cast<std::uint32_t>(sequence->running->tokens.size() - sequence->held.size());
  };
  std::sort(prompts.begin(), prompts.end(), [&](const Sequence* a, const Sequence* b) {
    return std::pair(pending_of(a), a->running->order) <
           std::pair(pending_of(b), b->running->order);
  });
  Sequence* const oldest = *std::min_element(
      prompts.begin(), prompts.end(),
      [](const Sequence* a, const Sequence* b) { return a->running->order < b->running->order; });
  const std::uint32_t reserved =
      prompts.size() > 1 ? std::min(pending_of(oldest), std::max(budget / 2, 1U)) : 0;
  budget -= reserved;
  for (Sequence* sequence : prompts) {
    const std::uint32_t own = sequence == oldest ? reserved : 0;
    const std::uint32_t count = std::min(pending_of(sequence), own + budget);
    budget -= count - own;
    if (count == 0) continue;
    const std::span<const Token> rest =
        std::span(sequence->running->tokens).subspan(sequence->held.size());
    inputs.push_back({sequence->id, rest.first(count), count == rest.size()});
    members.push_back(sequence);
  }
}

Result<bool> BatchLoop::step() {
  std::vector<StepInput> inputs;
  std::vector<Sequence*> members;
  std::vector<Token> sampled;
  plan_step(inputs, members);
  if (inputs.empty()) return !waiting_.empty();

  const TimePoint began = clock_.now();
  const Result<void> stepped = engine_.step(inputs, sampled);
  if (!stepped) {
    if (stepped.error().code != Code::kOutOfMemory) return std::unexpected(stepped.error());
    if (!make_room()) {
      // One request alone fills the whole cache.
      end_with(*members.front(), StopCause::kWindowFull);
    }
    return true;
  }
  std::uint32_t prompt_tokens = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].tokens.size() > 1) {
      prompt_tokens += static_cast<std::uint32_t>(inputs[i].tokens.size());
    }
    // The tokens lie in `running->tokens`; copy them before take_sampled() may grow that.
    const std::size_t held = members[i]->held.size();
    const auto& tokens = members[i]->running->tokens;
    const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(held);
    members[i]->held.insert(members[i]->held.end(), first,
                            first + static_cast<std::ptrdiff_t>(inputs[i].tokens.size()));
  }
  chunk_size_.observe(prompt_tokens, clock_.now() - began);

  std::size_t next = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].samples) continue;
    PENSIEVE_CHECK(next < sampled.size());
    take_sampled(*members[i], sampled[next++]);
  }
  return true;
}

bool BatchLoop::make_room() {
  Sequence* oldest_idle = nullptr;
  Sequence* newest_running = nullptr;
  std::size_t running = 0;
  for (Sequence& sequence : sequences_) {
    if (sequence.running) {
      ++running;
      if (newest_running == nullptr || sequence.running->order > newest_running->running->order) {
        newest_running = &sequence;
      }
    } else if (!sequence.held.empty() &&
               (oldest_idle == nullptr || sequence.used_at < oldest_idle->used_at)) {
      oldest_idle = &sequence;
    }
  }
  if (oldest_idle != nullptr) {
    engine_.keep_prefix(oldest_idle->id, 0);
    oldest_idle->held.clear();
    return true;
  }
  if (running < 2) return false;
  engine_.keep_prefix(newest_running->id, 0);
  newest_running->held.clear();
  log::info("request {} waits: the KV cache of {} tokens is full", newest_running->running->job.id,
            options_.context_tokens);
  waiting_.push_front(std::move(newest_running->running));
  return true;
}

void BatchLoop::take_sampled(Sequence& sequence, Token token) {
  Running& running = *sequence.running;
  if (running.output_tokens == 0) running.first_token_at = clock_.now();
  if (engine_.ends_generation(token)) {
    end_with(sequence, StopCause::kEndOfTurn);
    return;
  }
  running.tokens.push_back(token);
  ++running.output_tokens;
  std::string piece;
  engine_.append_piece(token, piece);
  const std::string text = running.filter.push(piece);
  if (!text.empty()) events_.text(running.job.id, text);
  if (running.filter.met()) {
    end_with(sequence, StopCause::kStopSequence);
  } else if (running.output_tokens >= running.job.output_tokens_max) {
    end_with(sequence, StopCause::kTokenLimit);
  } else if (running.tokens.size() >= options_.context_tokens) {
    end_with(sequence, StopCause::kWindowFull);
  }
}

void BatchLoop::end_with(Sequence& sequence, StopCause cause) {
  Running& running = *sequence.running;
  const std::string rest = running.filter.finish();
  if (!rest.empty()) events_.text(running.job.id, rest);
  const TimePoint now = clock_.now();
  const TimePoint first = running.output_tokens > 0 ? running.first_token_at : now;
  events_.done(running.job.id,
               {cause, running.filter.met().value_or(""), running.output_tokens,
                seconds_between(running.started_at, first), seconds_between(first, now)});
  leave(sequence);
}

void BatchLoop::leave(Sequence& sequence) {
  const std::uint32_t id = sequence.running->job.id;
  sequence.running.reset();
  sequence.used_at = ++counter_;
  after_request(id);
}

void BatchLoop::after_request(std::uint32_t id) {
  engine_.clear_cache();
  events_.ended(id);
}

Cleared BatchLoop::free_memory() {
  Cleared cleared;
  bool any_running = false;
  for (Sequence& sequence : sequences_) {
    any_running = any_running || sequence.running != nullptr;
    if (sequence.running || sequence.held.empty()) continue;
    cleared.dropped_tokens += size32(sequence.held);
    engine_.keep_prefix(sequence.id, 0);
    sequence.held.clear();
  }
  cleared.freed = engine_.clear_cache();
  if (!any_running) {
    cleared.freed = Bytes(cleared.freed.count() + engine_.release_buffers().count());
  }
  return cleared;
}

void BatchLoop::publish_stats() {
  Stats stats;
  stats.waiting = static_cast<std::uint32_t>(waiting_.size());
  for (const Sequence& sequence : sequences_) {
    if (sequence.running) ++stats.running;
    stats.cached_tokens += size32(sequence.held);
  }
  stats.busy = stats.running > 0 || stats.waiting > 0;
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
