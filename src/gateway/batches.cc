#include "gateway/batches.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "api/json.h"
#include "api/response.h"
#include "base/log.h"
#include "gateway/collected_answer.h"
#include "gateway/message_relay.h"

namespace pensieve::gateway {
namespace {

namespace asio = boost::asio;

/// After a disk that fails, or a lack of buffers. Choice: nobody waits for a batch.
constexpr Duration kPauseAfterFailure = std::chrono::seconds(30);
/// Requests that get a result without running, per tick: each is a line in a file.
constexpr std::size_t kClosedPerTick = 200;
/// Requests that are looked at per tick; a batch of nonsense must not hold up the io thread.
constexpr int kStartsPerTick = 64;
/// A line of this size always has room, so that every batch comes to its end.
constexpr std::size_t kShortLineBytes = 1024;

std::optional<std::string> shown(const std::optional<WallTime>& time) {
  if (!time) return std::nullopt;
  return rfc3339(*time);
}

api::ApiError no_batch(std::string_view id) {
  return api::not_found(fmt::format("batch {}: there is none", id));
}

api::ApiError disk_error(const Error& error) {
  log::warning("batches: {}", error.message);
  return api::internal(error.message);
}

}  // namespace

std::uint32_t batch_lanes(memory::Level level, std::uint32_t places, std::uint32_t interactive) {
  if (level != memory::Level::kSafe) return 0;
  if (interactive == 0) return std::max(1U, places - 1);
  return interactive + 1 < places ? 1 : 0;
}

Batches::Batches(std::unique_ptr<BatchStore> store, Seams seams)
    : store_(std::move(store)), seams_(std::move(seams)) {}

Batches::~Batches() = default;

void Batches::tick() {
  if (stopped_) return;
  choose_closing();
  close_some();
  forget_one();
  const std::uint32_t allowed =
      batch_lanes(seams_.monitor.status().level, seams_.pool.sequences_max(), seams_.interactive());
  std::size_t going_on = 0;
  for (Lane& lane : lanes_) {
    if (!lane.taken_back && ++going_on > allowed) take_back(lane);
  }
  for (int i = 0; i < kStartsPerTick && lanes_.size() < allowed; ++i) {
    if (!start_next()) break;
  }
}

Batches::Status Batches::status() const {
  Status status;
  status.running = lanes_.size();
  status.stored = Bytes(store_->bytes());
  for (const BatchRecord& record : store_->batches()) {
    std::uint64_t& batches = record.ended_at              ? status.ended
                             : record.cancel_initiated_at ? status.canceling
                                                          : status.in_progress;
    ++batches;
    std::uint64_t done = 0;
    for (std::size_t i = 0; i < record.tally.size(); ++i) {
      status.results[i] += record.tally[i];
      done += record.tally[i];
    }
    status.unfinished += record.requests - std::min<std::uint64_t>(done, record.requests);
  }
  return status;
}

void Batches::stop() {
  stopped_ = true;
  for (Lane& lane : lanes_) {
    if (!lane.taken_back) take_back(lane);
  }
}

void Batches::take_back(Lane& lane) {
  lane.taken_back = true;
  if (lane.relay != nullptr) lane.relay->end_early(api::overloaded("the batch has to wait", 1));
}

void Batches::pause(Duration duration) {
  not_before_ = std::max(not_before_, seams_.clock.now() + duration);
}

bool Batches::is_over(const BatchRecord& record) const {
  return record.cancel_initiated_at || seams_.wall() >= record.expires_at;
}

/// The oldest batch that is over for another reason than that all is done.
void Batches::choose_closing() {
  if (closing_) return;
  for (const BatchRecord& record : store_->batches()) {
    if (record.ended_at || !is_over(record) || is_changing(record.id)) continue;
    const bool is_front = front_ && front_->id == record.id;
    if (is_front && !lanes_.empty()) {
      for (Lane& lane : lanes_) {
        if (!lane.taken_back) take_back(lane);
      }
      return;  // Once they have come back, at a later tick.
    }
    if (is_front) front_.reset();
    closing_ = Closing{
        record.id,
        record.cancel_initiated_at ? api::BatchResult::kCanceled : api::BatchResult::kExpired,
        store_->unfinished(record.id)};
    return;
  }
}

void Batches::close_some() {
  for (std::size_t i = 0; closing_ && i < kClosedPerTick; ++i) {
    if (closing_->queue.empty()) {
      if (is_changing(closing_->id)) return;  // A cancel, which must not be forgotten.
      begin_end(closing_->id);
      closing_.reset();
      return;
    }
    const std::uint32_t index = closing_->queue.back();
    const auto request = store_->request(closing_->id, index);
    const bool done =
        request && keep_result(closing_->id, index,
                               api::unprocessed_line(request->custom_id, closing_->result));
    if (!done) {
      closing_.reset();  // Chosen again at the next tick.
      return;
    }
    closing_->queue.pop_back();
  }
}

asio::awaitable<Result<void>> Batches::apply(BatchStore::Change change) {
  Result<void> written = co_await seams_.disk.run(std::move(change.write));
  if (written) change.commit();
  co_return written;
}

asio::awaitable<Result<void>> Batches::apply_to(std::string id, BatchStore::Change change) {
  changing_.insert(id);
  Result<void> written = co_await apply(std::move(change));
  changing_.erase(id);
  co_return written;
}

void Batches::begin_end(const std::string& id) {
  begin(id, store_->end(id, seams_.wall()));
}

void Batches::forget_one() {
  if (seams_.clock.now() < not_before_) return;
  for (const BatchRecord& record : store_->batches()) {
    if (!record.ended_at || seams_.wall() < record.created_at + kKeepFor) continue;
    if (is_changing(record.id)) return;
    log::info("{}: removed, {} days after its creation", record.id,
              std::chrono::floor<std::chrono::days>(kKeepFor).count());
    return begin(record.id, store_->remove(record.id));
  }
}

void Batches::begin(const std::string& id, BatchStore::Change change) {
  changing_.insert(id);  // Also where the coroutine starts later: nobody may choose it again.
  asio::co_spawn(seams_.executor, finish(id, std::move(change)), asio::detached);
}

asio::awaitable<void> Batches::finish(std::string id, BatchStore::Change change) {
  const Result<void> done = co_await apply_to(std::move(id), std::move(change));
  if (done) co_return;
  log::warning("batches: {}", done.error().message);
  pause(kPauseAfterFailure);
}

bool Batches::choose_front() {
  for (const BatchRecord& record : store_->batches()) {
    if (record.ended_at || is_over(record) || is_changing(record.id)) continue;
    if (!seams_.has_tokens(record.owner)) continue;
    std::vector<std::uint32_t> queue = store_->unfinished(record.id);
    std::ranges::reverse(queue);
    front_ = Front{record.id, std::move(queue), {}};
    return true;
  }
  return false;
}

bool Batches::start_next() {
  if (seams_.clock.now() < not_before_) return false;
  if (!front_ && !choose_front()) return false;
  const BatchRecord* batch = store_->find(front_->id);
  PENSIEVE_CHECK(batch != nullptr);
  if (is_over(*batch)) return false;  // Its turn is in choose_closing().
  if (!front_->queue.empty() && !seams_.has_tokens(batch->owner)) {
    if (!lanes_.empty()) return false;
    front_.reset();  // The next owner's turn; this one's comes again tomorrow.
    return choose_front();
  }
  if (front_->queue.empty()) {
    if (!lanes_.empty() || is_changing(front_->id)) return false;
    begin_end(front_->id);
    front_.reset();
    return true;
  }
  const std::uint32_t index = front_->queue.back();
  auto request = store_->request(front_->id, index);
  if (!request) {
    log::warning("batches: {}", request.error().message);
    pause(kPauseAfterFailure);
    return false;
  }
  front_->queue.pop_back();
  start(index, *std::move(request));
  return true;
}

void Batches::start(std::uint32_t index, api::BatchRequest request) {
  const std::string custom_id = request.custom_id;
  auto charge = seams_.buffers.try_charge(request_bytes(request.params.size()));
  auto parsing =
      seams_.buffers.try_charge(Bytes(api::parse_memory_bytes_max(request.params.size())));
  if (!charge || !parsing) {
    front_->queue.push_back(index);
    pause(kPauseAfterFailure);
    return;
  }
  auto parsed = api::parse_messages_request(request.params, seams_.pool.model().sees());
  parsing->give_back();
  std::optional<api::ApiError> error;
  if (!parsed) {
    error = parsed.error();
  } else if (parsed->stream) {
    error = api::invalid_request("stream: a batch has no streams");
  } else if (const auto known = seams_.check_model(parsed->model); !known) {
    error = known.error();
  }
  if (error) {
    const bool done =
        keep_result(front_->id, index, api::errored_line(custom_id, *error, api::new_id("req_")));
    if (!done) front_->queue.push_back(index);
    return;
  }
  lanes_.push_back({.index = index, .custom_id = custom_id});
  const auto lane = std::prev(lanes_.end());
  asio::co_spawn(seams_.executor, run(lane, *std::move(parsed), *std::move(charge)),
                 asio::detached);
}

asio::awaitable<void> Batches::run(Lanes::iterator lane, api::MessagesRequest request,
                                   BufferCharge charge) {
  const std::string request_id = api::new_id("req_");
  CollectedAnswer answer(std::move(charge));
  api::MessagesFormat format;
  Traffic traffic;  // Of its own: these are no answers over HTTP.
  std::optional<api::ApiError> error;
  {
    MessageRelay relay(answer, seams_.pool, seams_.clock, traffic, std::move(request), request_id,
                       Headers(), format);
    lane->relay = &relay;
    if (lane->taken_back) relay.end_early(api::overloaded("the batch has to wait", 1));
    error = co_await relay.run();
    lane->relay = nullptr;
    const BatchRecord* batch = store_->find(front_->id);
    if (batch != nullptr) seams_.spend(batch->owner, relay.tokens());
  }
  seams_.traffic.input_tokens += traffic.input_tokens;
  seams_.traffic.cached_tokens += traffic.cached_tokens;
  seams_.traffic.output_tokens += traffic.output_tokens;
  settle(lane, error, answer.body(), request_id);
}

void Batches::settle(Lanes::iterator lane, const std::optional<api::ApiError>& error,
                     std::string_view message, std::string_view request_id) {
  PENSIEVE_CHECK(front_.has_value());
  const std::uint32_t index = lane->index;
  bool put_back = error && lane->taken_back;
  // Also a model that cannot be had at all may be mended within the day.
  const bool may_pass = error && (error->status == 503 || error->status == 529);
  if (may_pass && !put_back) {
    const unsigned tries = ++front_->tries[index];
    put_back = tries < kTriesMax;
    const Duration wait = error->retry_after_seconds
                              ? Duration(std::chrono::seconds(*error->retry_after_seconds))
                              : kPauseAfterFailure;
    pause(wait * tries);
  }
  if (!put_back) {
    const std::string line = error ? api::errored_line(lane->custom_id, *error, request_id)
                                   : api::succeeded_line(lane->custom_id, message);
    put_back = !keep_result(front_->id, index, line);
  }
  if (put_back) front_->queue.push_back(index);
  lanes_.erase(lane);
  tick();
}

bool Batches::keep_result(std::string_view id, std::uint32_t index, const std::string& line) {
  const BatchRecord* batch = store_->find(id);
  PENSIEVE_CHECK(batch != nullptr);
  const bool is_short = line.size() <= kShortLineBytes;
  Result<void> appended;
  if (is_short || store_->bytes() + line.size() <= BatchStore::kBytesMax) {
    appended = store_->append(id, index, line);
  } else {
    const auto request = store_->request(id, index);
    if (!request) return false;
    appended = store_->append(
        id, index,
        api::errored_line(request->custom_id,
                          api::internal("no room is left for results; delete old batches"),
                          api::new_id("req_")));
  }
  if (appended) return true;
  log::warning("batches: {}", appended.error().message);
  pause(kPauseAfterFailure);
  return false;
}

Batches::LaterAnswer Batches::create(const std::vector<api::BatchRequest>& requests,
                                     const Asker& asker) {
  std::uint64_t bytes = 0;
  for (const api::BatchRequest& request : requests) {
    bytes += request.params.size() + api::kCustomIdBytesMax;
  }
  if (!store_->has_room(asker.owner, creating_ + 1, creating_bytes_ + bytes)) {
    const std::size_t part = asker.owner.empty() ? 1 : BatchStore::kOwnersPart;
    co_return std::unexpected(api::rate_limited(
        fmt::format("there is no room for this batch: {} are kept ({} at most{}) with {} bytes ({} "
                    "at most); delete some that have ended",
                    store_->batches().size(), BatchStore::kBatchesMax / part,
                    part > 1 ? " of one key" : "", store_->bytes(), BatchStore::kBytesMax / part),
        std::nullopt));
  }
  BatchRecord record;
  record.owner = asker.owner;
  record.created_at = seams_.wall();
  record.expires_at = record.created_at + kExpireAfter;
  BatchStore::Creation creation = store_->create(std::move(record), requests);
  ++creating_;
  creating_bytes_ += bytes;
  const Result<void> created = co_await apply(std::move(creation.change));
  --creating_;
  creating_bytes_ -= bytes;
  if (!created) co_return std::unexpected(disk_error(created.error()));
  log::info("{}: created with {} requests", creation.record->id, creation.record->requests);
  co_return body(*creation.record, asker);
}

const BatchRecord* Batches::find(std::string_view id, const Asker& asker) const {
  const BatchRecord* record = store_->find(id);
  return record != nullptr && record->owner == asker.owner ? record : nullptr;
}

std::string Batches::body(const BatchRecord& record, const Asker& asker) const {
  return api::batch_body(
      {.id = record.id,
       .requests = record.requests,
       .created_at = rfc3339(record.created_at),
       .expires_at = rfc3339(record.expires_at),
       .cancel_initiated_at = shown(record.cancel_initiated_at),
       .ended_at = shown(record.ended_at),
       .tally = record.tally,
       .results_url = fmt::format("{}/v1/messages/batches/{}/results", asker.base_url, record.id)});
}

Batches::Answer Batches::list(std::string_view query, const Asker& asker) const {
  const auto page = api::parse_page(query);
  if (!page) return std::unexpected(page.error());
  std::vector<const BatchRecord*> records;
  std::vector<std::string> ids;
  for (auto record = store_->batches().rbegin(); record != store_->batches().rend(); ++record) {
    if (record->owner != asker.owner) continue;
    records.push_back(&*record);
    ids.push_back(record->id);
  }
  return api::page_body(ids, *page, [&](std::size_t i) { return body(*records[i], asker); });
}

Batches::Answer Batches::retrieve(std::string_view id, const Asker& asker) const {
  const BatchRecord* record = find(id, asker);
  if (record == nullptr) return std::unexpected(no_batch(id));
  return body(*record, asker);
}

Batches::LaterAnswer Batches::cancel(const std::string& id, const Asker& asker) {
  const BatchRecord* record = find(id, asker);
  if (record == nullptr) co_return std::unexpected(no_batch(id));
  // One that has ended meanwhile, or is just ending, is no error: its client could not know.
  if (!record->ended_at && !is_changing(id)) {
    const Result<void> canceled = co_await apply_to(id, store_->cancel(id, seams_.wall()));
    if (!canceled) co_return std::unexpected(disk_error(canceled.error()));
  }
  co_return retrieve(id, asker);
}

Batches::LaterAnswer Batches::remove(const std::string& id, const Asker& asker) {
  const BatchRecord* record = find(id, asker);
  // One that is being removed is as good as gone.
  if (record == nullptr || (record->ended_at && is_changing(id))) {
    co_return std::unexpected(no_batch(id));
  }
  if (!record->ended_at) {
    co_return std::unexpected(api::invalid_request(
        fmt::format("batch {} is still being processed; cancel it first", id)));
  }
  const Result<void> removed = co_await apply_to(id, store_->remove(id));
  if (!removed) co_return std::unexpected(disk_error(removed.error()));
  co_return api::deleted_batch_body(id);
}

std::expected<std::filesystem::path, api::ApiError> Batches::results(std::string_view id,
                                                                     const Asker& asker) const {
  const BatchRecord* record = find(id, asker);
  if (record == nullptr) return std::unexpected(no_batch(id));
  if (!record->ended_at) {
    return std::unexpected(api::invalid_request(
        fmt::format("batch {} is still being processed; it has results once it has ended", id)));
  }
  return store_->results_path(id);
}

}  // namespace pensieve::gateway
