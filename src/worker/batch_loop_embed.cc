// The part of BatchLoop that is about embeddings: one input in one turn.
#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "worker/batch_loop.h"

namespace pensieve::worker {

Result<void> BatchLoop::embed(EmbedJob job) {
  PENSIEVE_CHECK(!job.tokens.empty());
  {
    const std::lock_guard lock(mutex_);
    if (stats_.waiting + commands_.jobs.size() + commands_.embeds.size() >= options_.waiting_max) {
      return fail(Code::kUnavailable,
                  fmt::format("{} requests are waiting already", options_.waiting_max));
    }
    commands_.embeds.push_back(std::move(job));
  }
  wake_.notify_one();
  return {};
}

bool BatchLoop::cancel_embed(std::uint32_t id) {
  const auto waiting = std::ranges::find(embeds_, id, &EmbedJob::id);
  if (waiting == embeds_.end()) return false;
  embeds_.erase(waiting);
  events_.ended(id);
  return true;
}

/// Returns whether there was one. Commands are taken before the next.
Result<bool> BatchLoop::embed_next() {
  if (embeds_.empty()) return false;
  const EmbedJob job = std::move(embeds_.front());
  embeds_.pop_front();
  if (const auto refused = events_.check_memory([this] { free_memory(false); })) {
    events_.refused(job.id, *refused);
    after_request(job.id);
    return true;
  }
  Result<std::vector<float>> embedding = engine_.embed(job.tokens);
  if (embedding) {
    events_.embedded(job.id,
                     {static_cast<std::uint32_t>(job.tokens.size()), *std::move(embedding)});
  } else if (embedding.error().code == Code::kInvalidArgument) {
    events_.failed(job.id, {Code::kInvalidArgument, embedding.error().message});
  } else {
    return std::unexpected(embedding.error());
  }
  after_request(job.id);
  return true;
}

}  // namespace pensieve::worker
