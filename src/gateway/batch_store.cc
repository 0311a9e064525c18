#include "gateway/batch_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "api/response.h"
#include "base/log.h"
#include "gateway/disk_thread.h"

namespace pensieve::gateway {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr int kVersion = 1;
/// Our own is a few hundred bytes; more is somebody else's.
constexpr std::uint64_t kRecordBytesMax = 64U << 10;
constexpr std::string_view kIdPrefix = "msgbatch_";
/// A batch that is being made or removed; swept away at the next start.
constexpr std::string_view kUnfinishedPrefix = ".";

Error unavailable(const fs::path& path, std::string_view why) {
  return {Code::kUnavailable, fmt::format("{}: {}", path.string(), why)};
}

std::unexpected<Error> system_failure(const fs::path& path) {
  return std::unexpected(unavailable(path, std::strerror(errno)));
}

/// Closes on every way out.
class File {
 public:
  File(const fs::path& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, S_IRUSR | S_IWUSR)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool usable() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  bool write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    return true;
  }

 private:
  const int fd_;
};

Result<void> move_to(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return system_failure(to);
  return {};
}

json::value seconds(const std::optional<WallTime>& time) {
  return time ? json::value(time->time_since_epoch().count()) : json::value(nullptr);
}

WallTime time_from(const json::value& value) {
  return WallTime(std::chrono::seconds(value.to_number<std::int64_t>()));
}

std::optional<WallTime> optional_time_from(const json::value& value) {
  if (value.is_null()) return std::nullopt;
  return time_from(value);
}

std::string text_of(const BatchRecord& record) {
  json::array tally;
  for (const std::uint32_t count : record.tally) tally.push_back(json::value(count));
  return json::serialize(json::object{{"version", kVersion},
                                      {"order", record.order},
                                      {"owner", record.owner},
                                      {"created_at", seconds(record.created_at)},
                                      {"expires_at", seconds(record.expires_at)},
                                      {"cancel_initiated_at", seconds(record.cancel_initiated_at)},
                                      {"ended_at", seconds(record.ended_at)},
                                      {"requests", record.requests},
                                      {"tally", std::move(tally)}});
}

/// Throws std::exception where it is no such record.
BatchRecord record_from(const json::value& value) {
  if (value.at("version").to_number<int>() != kVersion) throw std::range_error("another version");
  BatchRecord record;
  record.order = value.at("order").to_number<std::uint64_t>();
  record.owner = std::string(value.at("owner").as_string());
  record.created_at = time_from(value.at("created_at"));
  record.expires_at = time_from(value.at("expires_at"));
  record.cancel_initiated_at = optional_time_from(value.at("cancel_initiated_at"));
  record.ended_at = optional_time_from(value.at("ended_at"));
  record.requests = value.at("requests").to_number<std::uint32_t>();
  const json::array& tally = value.at("tally").as_array();
  if (tally.size() != record.tally.size() || record.requests == 0 ||
      record.requests > api::kBatchRequestsMax) {
    throw std::range_error("its numbers");
  }
  for (std::size_t i = 0; i < tally.size(); ++i) {
    record.tally[i] = tally[i].to_number<std::uint32_t>();
  }
  return record;
}

std::size_t position(api::BatchResult result) {
  return static_cast<std::size_t>(result);
}

/// A line of the results taken apart; empty where it is torn or none.
struct ResultLine {
  std::uint32_t index;
  api::BatchResult result;
};
std::optional<ResultLine> parse_result_line(std::string_view line, std::uint32_t requests) {
  std::uint32_t index = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), index);
  const auto digits = static_cast<std::size_t>(end - line.data());
  if (error != std::errc() || digits + 1 != BatchStore::kIndexBytes || index >= requests) {
    return std::nullopt;
  }
  const auto result = api::result_of_line(line.substr(BatchStore::kIndexBytes));
  if (!result) return std::nullopt;
  return ResultLine{index, *result};
}

/// Reads the results up to the first line that is torn, which can only be the last one. Returns the
/// bytes that are whole; `done` tells which requests have a result.
std::uint64_t scan_results(const fs::path& path, std::uint32_t requests, std::vector<bool>& done,
                           api::BatchTally& tally) {
  done.assign(requests, false);
  tally.fill(0);
  std::ifstream file(path, std::ios::binary);
  std::uint64_t whole = 0;
  std::string line;
  while (std::getline(file, line) && !file.eof()) {
    const auto result = parse_result_line(line, requests);
    if (!result || done[result->index]) break;
    done[result->index] = true;
    ++tally[position(result->result)];
    whole += line.size() + 1;
  }
  return whole;
}

std::uint64_t size_of(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

/// The files of a new batch, in a folder that is made for it.
Result<void> fill(const fs::path& folder, BatchRecord& record,
                  const std::vector<api::BatchRequest>& requests) {
  std::error_code error;
  fs::create_directory(folder, error);
  if (error) return std::unexpected(unavailable(folder, error.message()));
  const fs::path path = folder / "requests.jsonl";
  {
    const File file(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.usable()) return system_failure(path);
    for (const api::BatchRequest& request : requests) {
      const std::string line = api::request_line(request) + "\n";
      if (!file.write(line)) return system_failure(path);
      record.bytes += line.size();
    }
  }
  if (auto synced = sync_path(path); !synced) return synced;
  if (auto written = write_durably(folder / "results.jsonl", ""); !written) return written;
  return replace_durably(folder / "batch.json", text_of(record));
}

}  // namespace

Result<std::unique_ptr<BatchStore>> BatchStore::open(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  const fs::path lock_path = fs::path(folder) / "lock";
  const int lock = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (lock < 0) return system_failure(lock_path);
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock);
    return std::unexpected(unavailable(folder, "another server keeps its batches there"));
  }
  std::unique_ptr<BatchStore> store(new BatchStore(folder, lock));
  store->load();
  return store;
}

BatchStore::~BatchStore() {
  ::close(lock_);
}

void BatchStore::load() {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kUnfinishedPrefix)) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
      continue;
    }
    if (!name.starts_with(kIdPrefix) || batches_.size() == kBatchesMax) continue;
    Result<BatchRecord> record = read(entry.path());
    if (record) {
      batches_.push_back(*std::move(record));
    } else {
      log::warning("a batch is left out: {}", record.error().message);
    }
  }
  std::ranges::sort(batches_, {}, &BatchRecord::order);
  if (!batches_.empty()) last_order_ = batches_.back().order;
}

Result<BatchRecord> BatchStore::read(const fs::path& folder) const {
  const fs::path path = folder / "batch.json";
  std::string text(kRecordBytesMax, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  BatchRecord record;
  try {
    record = record_from(json::parse(text));
  } catch (const std::exception& what) {
    return std::unexpected(unavailable(path, what.what()));
  }
  record.id = folder.filename().string();
  if (auto results = read_results(folder, record); !results) {
    return std::unexpected(results.error());
  }
  return record;
}

Result<void> BatchStore::read_results(const fs::path& folder, BatchRecord& record) const {
  const fs::path requests = folder / "requests.jsonl";
  const fs::path results = folder / "results.jsonl";
  if (!record.ended_at) {
    const std::uint64_t whole = scan_results(results, record.requests, record.done, record.tally);
    if (whole < size_of(results) && ::truncate(results.c_str(), static_cast<off_t>(whole)) != 0) {
      return system_failure(results);
    }
    std::ifstream file(requests, std::ios::binary);
    const auto lines = std::count(std::istreambuf_iterator<char>(file), {}, '\n');
    if (lines != static_cast<std::ptrdiff_t>(record.requests)) {
      return std::unexpected(unavailable(requests, "some of the requests are missing"));
    }
  }
  record.bytes = size_of(requests) + size_of(results);
  return {};
}

fs::path BatchStore::folder_of(std::string_view id) const {
  return folder_ / id;
}

fs::path BatchStore::results_path(std::string_view id) const {
  return folder_of(id) / "results.jsonl";
}

const BatchRecord* BatchStore::find(std::string_view id) const {
  const auto found = std::ranges::find(batches_, id, &BatchRecord::id);
  return found == batches_.end() ? nullptr : &*found;
}

BatchRecord& BatchStore::at(std::string_view id) {
  const auto found = std::ranges::find(batches_, id, &BatchRecord::id);
  PENSIEVE_CHECK(found != batches_.end());
  return *found;
}

std::uint64_t BatchStore::bytes() const {
  std::uint64_t sum = 0;
  for (const BatchRecord& record : batches_) sum += record.bytes;
  return sum;
}

bool BatchStore::has_room(std::string_view owner, std::size_t batches,
                          std::uint64_t request_bytes) const {
  if (batches_.size() + batches > kBatchesMax) return false;
  if (bytes() + request_bytes > kBytesMax) return false;
  if (owner.empty()) return true;
  for (const BatchRecord& record : batches_) {
    if (record.owner != owner) continue;
    ++batches;
    request_bytes += record.bytes;
  }
  return batches <= kBatchesMax / kOwnersPart && request_bytes <= kBytesMax / kOwnersPart;
}

BatchStore::Creation BatchStore::create(BatchRecord record,
                                        const std::vector<api::BatchRequest>& requests) {
  record.id = api::new_id(kIdPrefix);
  record.order = ++last_order_;
  record.requests = static_cast<std::uint32_t>(requests.size());
  record.done.assign(record.requests, false);
  const auto created = std::make_shared<BatchRecord>(std::move(record));
  const fs::path made = folder_ / fmt::format("{}{}", kUnfinishedPrefix, created->id);
  const fs::path final_place = folder_of(created->id);
  const auto write = [created, made, final_place, &requests]() -> Result<void> {
    auto filled = fill(made, *created, requests);
    if (filled) filled = move_to(made, final_place);
    if (filled) filled = sync_path(final_place.parent_path());
    if (filled) return filled;
    std::error_code ignored;
    fs::remove_all(made, ignored);
    fs::remove_all(final_place, ignored);  // Nobody was told of it.
    return filled;
  };
  return {.record = created,
          .change = {.write = write, .commit = [this, created] { batches_.push_back(*created); }}};
}

BatchStore::Change BatchStore::replace(BatchRecord changed) {
  const fs::path path = folder_of(changed.id) / "batch.json";
  return {.write = [path, text = text_of(changed)] { return replace_durably(path, text); },
          .commit = [this, changed] { at(changed.id) = changed; }};
}

BatchStore::Change BatchStore::cancel(std::string_view id, WallTime now) {
  BatchRecord changed = at(id);
  const auto first = changed.cancel_initiated_at.value_or(now);
  changed.cancel_initiated_at = first;
  Change change = replace(changed);
  // Results may come meanwhile: they stay counted.
  change.commit = [this, gone = changed.id, first] { at(gone).cancel_initiated_at = first; };
  return change;
}

BatchStore::Change BatchStore::end(std::string_view id, WallTime now) {
  BatchRecord changed = at(id);
  changed.ended_at = now;
  changed.done = {};
  Change change = replace(std::move(changed));
  change.write = [results = results_path(id), then = std::move(change.write)] {
    auto synced = sync_path(results);
    return synced ? then() : synced;
  };
  return change;
}

BatchStore::Change BatchStore::remove(std::string_view id) {
  const fs::path from = folder_of(id);
  const fs::path gone = folder_ / fmt::format("{}{}", kUnfinishedPrefix, id);
  const auto write = [from, gone]() -> Result<void> {
    if (auto renamed = move_to(from, gone); !renamed) return renamed;
    if (auto synced = sync_path(gone.parent_path()); !synced) return synced;
    std::error_code ignored;  // The next start sweeps what is left.
    fs::remove_all(gone, ignored);
    return {};
  };
  return {.write = write, .commit = [this, removed = std::string(id)] {
            if (offsets_.id == removed) offsets_ = {};
            std::erase_if(batches_, [&](const BatchRecord& one) { return one.id == removed; });
          }};
}

std::vector<std::uint32_t> BatchStore::unfinished(std::string_view id) const {
  const BatchRecord* record = find(id);
  PENSIEVE_CHECK(record != nullptr && record->done.size() == record->requests);
  std::vector<std::uint32_t> indexes;
  for (std::uint32_t i = 0; i < record->requests; ++i) {
    if (!record->done[i]) indexes.push_back(i);
  }
  return indexes;
}

Result<api::BatchRequest> BatchStore::request(std::string_view id, std::uint32_t index) const {
  const fs::path path = folder_of(id) / "requests.jsonl";
  std::ifstream file(path, std::ios::binary);
  std::string line;
  if (offsets_.id != id) {
    Offsets offsets{std::string(id), {0}};
    while (std::getline(file, line) && !file.eof()) {
      offsets.starts.push_back(offsets.starts.back() + line.size() + 1);
    }
    offsets_ = std::move(offsets);
    file.clear();
  }
  if (index + 1 >= offsets_.starts.size()) {
    return std::unexpected(unavailable(path, "the request is not there"));
  }
  line.resize(static_cast<std::size_t>(offsets_.starts[index + 1] - offsets_.starts[index] - 1));
  file.seekg(static_cast<std::streamoff>(offsets_.starts[index]));
  file.read(line.data(), static_cast<std::streamsize>(line.size()));
  api::BatchRequest request = api::request_of_line(line);
  if (!file || request.params.empty()) {
    return std::unexpected(unavailable(path, "the request cannot be read"));
  }
  return request;
}

Result<void> BatchStore::append(std::string_view id, std::uint32_t index, std::string_view line) {
  BatchRecord& record = at(id);
  const auto result = api::result_of_line(line);
  PENSIEVE_CHECK(result.has_value() && index < record.done.size() && !record.done[index]);
  const fs::path path = results_path(id);
  const File file(path, O_WRONLY | O_APPEND);
  if (!file.usable()) return system_failure(path);
  const off_t before = ::lseek(file.fd(), 0, SEEK_END);
  const std::string whole = fmt::format("{:08} {}\n", index, line);
  if (before < 0 || !file.write(whole)) {
    const auto failure = system_failure(path);
    // Where even this fails, the next start cuts the torn line off.
    if (before >= 0 && ::ftruncate(file.fd(), before) != 0) {
      log::warning("{}: a torn line stays: {}", path.string(), std::strerror(errno));
    }
    return failure;
  }
  record.bytes += whole.size();
  ++record.tally[position(*result)];
  record.done[index] = true;
  return {};
}

std::string ResultsFile::next() {
  std::string piece;
  while (piece.empty()) {
    std::string read(kPieceBytes, '\0');
    file_.read(read.data(), static_cast<std::streamsize>(read.size()));
    read.resize(static_cast<std::size_t>(std::max<std::streamsize>(file_.gcount(), 0)));
    if (read.empty()) break;
    for (std::size_t at = 0; at < read.size();) {
      const std::size_t skipped = std::min(to_skip_, read.size() - at);
      at += skipped;
      to_skip_ -= skipped;
      if (to_skip_ > 0) break;
      const std::size_t line_break = read.find('\n', at);
      const std::size_t end = line_break == std::string::npos ? read.size() : line_break + 1;
      piece.append(read, at, end - at);
      if (line_break != std::string::npos) to_skip_ = BatchStore::kIndexBytes;
      at = end;
    }
  }
  return piece;
}

}  // namespace pensieve::gateway
