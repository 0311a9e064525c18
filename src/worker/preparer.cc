#include "worker/preparer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "worker/answer_text.h"
#include "worker/messages.h"
#include "worker/prompt_limit.h"

namespace pensieve::worker {

bool Preparer::wait_for_room(std::size_t bytes, Duration wait) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, wait, [&] { return has_room(bytes); });
}

/// Under the lock.
bool Preparer::has_room(std::size_t bytes) const {
  return waiting_.empty() || waiting_bytes_ + bytes <= kPreparingBytesMax.count();
}

Result<void> Preparer::add(std::uint32_t id, std::string payload) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= kPreparingMax) {
      return fail(Code::kUnavailable,
                  fmt::format("{} requests are being prepared already", waiting_.size()));
    }
    waiting_bytes_ += payload.size();
    waiting_.push_back({id, std::move(payload)});
  }
  changed_.notify_all();
  return {};
}

void Preparer::cancel(std::uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [id](const Request& request) { return request.id == id; });
  if (found != waiting_.end()) {
    waiting_bytes_ -= found->payload.size();
    waiting_.erase(found);
  } else if (preparing_ == id) {
    is_cancelled_ = true;
  } else {
    loop_.cancel(id);
  }
}

void Preparer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

void Preparer::run() {
  while (const std::optional<Request> request = next()) finish(request->id, prepared(*request));
}

std::uint32_t Preparer::count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::uint32_t>(waiting_.size()) + (preparing_ ? 1 : 0);
}

bool Preparer::hangs() const {
  const std::lock_guard lock(mutex_);
  return preparing_ && clock_.now() - since_ > kPrepareMax;
}

/// Empty where it is time to end.
std::optional<Preparer::Request> Preparer::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
  if (stopping_) return std::nullopt;
  Request request = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_bytes_ -= request.payload.size();
  preparing_ = request.id;
  since_ = clock_.now();
  is_cancelled_ = false;
  changed_.notify_all();  // There is room.
  return request;
}

Result<Job> Preparer::prepared(const Request& request) const {
  Result<GenerateRequest> asked = decode_generate_request(request.payload);
  if (!asked) return std::unexpected(asked.error());
  if (auto problem = too_long(text_bytes(asked->prompt), context_tokens_)) {
    return fail(Code::kInvalidArgument, *std::move(problem));
  }
  Result<engine::Prepared> prompt = engine_.prepare(asked->prompt);
  if (!prompt) return std::unexpected(prompt.error());
  std::vector<engine::Token>& tokens = prompt->tokens;
  // One cell is for the first token of the answer.
  const std::uint32_t prompt_tokens_max = context_tokens_ - 1;
  if (tokens.size() > prompt_tokens_max) {
    // Clients know this wording and compact their conversation (anthropic-wire.md, section 4).
    return fail(Code::kInvalidArgument, fmt::format("prompt is too long: {} tokens > {} maximum",
                                                    tokens.size(), prompt_tokens_max));
  }
  return Job{.id = request.id,
             .prompt = std::move(tokens),
             .output_tokens_max = asked->output_tokens_max,
             .stop_sequences = std::move(asked->stop_sequences),
             .sampling = asked->sampling,
             .shape = prompt->shape,
             .parser = answer_parser_for(asked->prompt, *prompt),
             .images = std::move(prompt->images)};
}

/// Under the lock, so that a cancel comes before the job is submitted, or after.
void Preparer::finish(std::uint32_t id, Result<Job> job) {
  std::optional<Error> error;
  {
    const std::lock_guard lock(mutex_);
    preparing_.reset();
    if (is_cancelled_) return;
    if (!job) {
      error = job.error();
    } else if (const Result<void> submitted = loop_.submit(*std::move(job)); !submitted) {
      error = submitted.error();
    }
  }
  if (error) failed_(id, *error);
}

}  // namespace pensieve::worker
