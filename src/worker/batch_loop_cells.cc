// The part of BatchLoop that is about KV cells: asking for them, getting and giving back some, and
// what becomes of requests that do not get enough.
#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "worker/batch_loop.h"

namespace pensieve::worker {

/// Whether it could not even begin if it were alone, and more cells may come. One cell is for the
/// first new token.
bool BatchLoop::is_too_large(const Running& running) const {
  return may_grow() && running.tokens.size() + 1 > engine_.cells();
}

/// Tokens that a request soon grows by. Choice: about ten seconds of an answer; in a small cache
/// an eighth.
std::uint32_t BatchLoop::room_to_grow() const {
  return std::min(256U, engine_.cells() / 8);
}

/// Cells for all that runs, for those that wait and would have a place, and for what idle
/// sequences hold, as long as caches may grow.
std::uint64_t BatchLoop::cells_wanted() {
  const std::uint32_t running = sequences_.running();
  const std::uint64_t growth = room_to_grow();
  std::uint64_t wanted = sequences_.pending_tokens() + running * growth;
  std::uint32_t places = running_max() - std::min(running_max(), running);
  for (const std::unique_ptr<Running>& next : waiting_) {
    if (places-- == 0) break;
    Sequences::Match match = sequences_.best_match(next->tokens);
    const bool is_idle = match.sequence != nullptr && !match.sequence->running;
    if (is_idle && !limits_.caches_grow) match = {};  // Its cells are not counted below.
    wanted += sequences_.new_cells(next->tokens, match) + growth;
  }
  wanted += limits_.caches_grow ? sequences_.cells_used() : sequences_.cells_of_running();
  return wanted;
}

void BatchLoop::ask_for_cells() {
  if (!may_grow() || (sequences_.running() == 0 && waiting_.empty())) return;
  const std::uint64_t wanted = std::min<std::uint64_t>(cells_wanted(), options_.cells_max);
  if (const auto need = demand_.question(engine_.cells(), wanted, clock_.now())) {
    events_.need_cells(*need);
  }
}

void BatchLoop::end_starved() {
  const TimePoint now = clock_.now();
  const auto starves = [&](const Running& running) {
    return running.short_since && now - *running.short_since >= CellDemand::kCellsWaitMax;
  };
  for (std::size_t i = 0; i < waiting_.size();) {
    if (!starves(*waiting_[i]) || !is_too_large(*waiting_[i])) {
      ++i;
      continue;
    }
    const std::unique_ptr<Running> ended = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    events_.refused(ended->job.id, starved(*ended));
    after_request(ended->job.id);
  }
  for (Sequence& sequence : sequences_.all()) {
    if (!sequence.running || !starves(*sequence.running)) continue;
    events_.refused(sequence.running->job.id, starved(*sequence.running));
    leave(sequence);
  }
}

Refused BatchLoop::starved(const Running& running) const {
  const std::optional<ResizeRefused>& refusal = demand_.refusal();
  const auto waited = std::chrono::duration_cast<std::chrono::seconds>(CellDemand::kCellsWaitMax);
  const std::string why = refusal ? refusal->reason : "no answer to the question for more";
  log::warning("request {} of {} tokens ends for want of KV cells ({} there): {}", running.job.id,
               running.tokens.size(), engine_.cells(), why);
  // Without an answer nothing is known of the memory, and that is never good.
  return {.level = refusal ? refusal->level : memory::kLevelWhenUnknown,
          .available = refusal ? refusal->available : std::nullopt,
          .reason = fmt::format("The request needs {} KV cells, {} are there, and no more came in "
                                "{} s: {}",
                                running.tokens.size() + 1, engine_.cells(), waited.count(), why)};
}

/// The last one counts; each gets its answer.
Result<void> BatchLoop::apply_resizes(const std::vector<std::uint32_t>& resizes) {
  if (resizes.empty()) return {};
  const Result<Resized> resized = change_cells(resizes.back());
  if (!resized) return std::unexpected(resized.error());
  for (std::size_t i = 0; i < resizes.size(); ++i) events_.resized(*resized);
  return {};
}

Result<Resized> BatchLoop::change_cells(std::uint32_t cells) {
  const std::uint32_t before = engine_.cells();
  std::uint32_t dropped = 0;
  if (cells < before) cells = std::min(smallest_cells(cells), before);
  if (cells < before) dropped = sequences_.let_go_until(cells);
  if (cells != before) {
    const TimePoint began = clock_.now();
    const Result<std::uint32_t> resized = engine_.resize(cells);
    if (!resized && resized.error().code == Code::kInternal) {
      return std::unexpected(resized.error());
    }
    sequences_.confirm_held();
    if (resized) {
      log::info(
          "the KV cache has {} cells instead of {}, of which {} are used; {} ms", *resized, before,
          sequences_.cells_used(),
          std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - began).count());
    } else {
      log::warning("the KV cache keeps its {} cells: {}", before, resized.error().message);
    }
  }
  if (engine_.cells() > before) {
    for (Sequence& sequence : sequences_.all()) {
      if (sequence.running) sequence.running->short_since.reset();
    }
  }
  demand_.answered(engine_.cells() != before);
  return Resized{engine_.cells(), sequences_.cells_used(), dropped};
}

/// The smallest of `asked`, twice that, ... in which all that runs has room to go on: its gateway
/// knows what each of these takes.
std::uint32_t BatchLoop::smallest_cells(std::uint32_t asked) {
  const std::uint64_t needed = sequences_.cells_of_running() + sequences_.pending_tokens() +
                               std::uint64_t{sequences_.running()} * room_to_grow();
  std::uint64_t cells = std::max(asked, 1U);
  while (cells < needed) cells *= 2;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(cells, UINT32_MAX));
}

}  // namespace pensieve::worker
