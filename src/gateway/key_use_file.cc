#include "gateway/key_use_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "base/log.h"

namespace pensieve::gateway {

namespace asio = boost::asio;
namespace fs = std::filesystem;

KeyUseFile::KeyUseFile(std::string path, KeyLimits& limits, const asio::any_io_executor& executor,
                       DiskThread& disk, const Clock& clock)
    : path_(std::move(path)),
      limits_(limits),
      executor_(executor),
      disk_(disk),
      clock_(clock),
      saved_(limits.spendings()),
      saved_at_(clock.now()) {
  read();
}

void KeyUseFile::read() {
  std::error_code error;
  if (!fs::exists(path_, error) && !error) return;
  std::ifstream file(path_, std::ios::binary);
  std::string text(kFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  Result<void> restored = text.size() > kFileBytesMax
                              ? fail(Code::kInvalidArgument, "it is too large")
                              : limits_.restore(text);
  if (restored) return;
  log::warning("{} is ignored ({}): what keys have used today is counted from 0", path_,
               restored.error().message);
}

void KeyUseFile::tick() {
  if (clock_.now() - saved_at_ >= kSaveEvery) save();
}

void KeyUseFile::save() {
  if (saving_) again_ = true;
  if (saving_ || saved_ == limits_.spendings()) return;
  saving_ = true;
  again_ = false;
  saved_at_ = clock_.now();
  asio::co_spawn(executor_, write(), asio::detached);
}

asio::awaitable<void> KeyUseFile::write() {
  const std::uint64_t spendings = limits_.spendings();
  const auto work = [path = path_, text = limits_.text()]() -> Result<void> {
    std::error_code ignored;  // Where there is no folder, the file says so.
    fs::create_directories(fs::path(path).parent_path(), ignored);
    return replace_durably(path, text);
  };
  const Result<void> written = co_await disk_.run(work);
  saving_ = false;
  if (written) saved_ = spendings;
  if (!written && !unwritable_) {
    log::warning("what keys have used today will be forgotten at the end: {}",
                 written.error().message);
  } else if (written && unwritable_) {
    log::info("what keys have used today is written to {} again", path_);
  }
  unwritable_ = !written;
  if (again_) save();
}

}  // namespace pensieve::gateway
