#include "worker/prefix_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include <fmt/core.h>
#include <xxhash.h>

namespace pensieve::worker {
namespace {

using engine::Token;

constexpr std::size_t kHashDigits = 32;
constexpr std::size_t kEndBytes = std::size_t{1} << 20;
constexpr std::uint64_t kSamples = 64;
constexpr std::size_t kSampleBytes = 4096;

std::string digits(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

bool all_hex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

class FileHash {
 public:
  explicit FileHash(int fd) : fd_(fd), state_(XXH3_createState()), buffer_(kEndBytes) {
    PENSIEVE_CHECK(state_ != nullptr);
    XXH3_128bits_reset(state_);
  }
  ~FileHash() { XXH3_freeState(state_); }
  FileHash(const FileHash&) = delete;
  FileHash& operator=(const FileHash&) = delete;

  /// False where the bytes cannot be read.
  bool add(std::uint64_t from, std::size_t count) {
    while (count > 0) {
      const ssize_t got =
          ::pread(fd_, buffer_.data(), std::min(count, buffer_.size()), static_cast<off_t>(from));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      XXH3_128bits_update(state_, buffer_.data(), static_cast<std::size_t>(got));
      from += static_cast<std::uint64_t>(got);
      count -= static_cast<std::size_t>(got);
    }
    return true;
  }
  std::string text() const { return digits(XXH3_128bits_digest(state_)); }

 private:
  int fd_;
  XXH3_state_t* state_;
  std::vector<char> buffer_;
};

bool add_samples(FileHash& hash, std::uint64_t size) {
  if (size <= 2 * kEndBytes) return hash.add(0, size);
  if (!hash.add(0, kEndBytes) || !hash.add(size - kEndBytes, kEndBytes)) return false;
  const std::uint64_t stride = (size - 2 * kEndBytes) / kSamples;
  for (std::uint64_t i = 0; i < kSamples; ++i) {
    const std::uint64_t from = kEndBytes + i * stride;
    if (!hash.add(from, std::min<std::uint64_t>(kSampleBytes, size - from))) return false;
  }
  return true;
}

}  // namespace

std::vector<std::uint64_t> prefix_marks(std::span<const Token> tokens) {
  std::vector<std::uint64_t> marks;
  marks.reserve(tokens.size() / kMarkTokens);
  std::uint64_t mark = 0;
  for (std::size_t end = kMarkTokens; end <= tokens.size(); end += kMarkTokens) {
    const std::span<const Token> block = tokens.subspan(end - kMarkTokens, kMarkTokens);
    mark = XXH3_64bits_withSeed(block.data(), block.size_bytes(), mark);
    marks.push_back(mark);
  }
  return marks;
}

std::uint32_t common_marked_tokens(std::span<const std::uint64_t> a,
                                   std::span<const std::uint64_t> b) {
  const auto ends = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::uint32_t>(ends.first - a.begin()) * kMarkTokens;
}

PrefixNames::PrefixNames(std::string_view identity)
    : start_(digits(XXH3_128bits(identity.data(), identity.size())) + "-") {}

std::string PrefixNames::name(std::span<const Token> tokens) const {
  std::string text = start_;
  text += digits(XXH3_128bits(tokens.data(), tokens.size_bytes()));
  text += kSuffix;
  return text;
}

bool PrefixNames::ours(std::string_view name) const {
  return is_prefix_name(name) && name.starts_with(start_) && name.ends_with(kSuffix);
}

bool is_prefix_name(std::string_view name) {
  constexpr std::string_view kStem = ".prefix";
  constexpr std::size_t kStemAt = 2 * kHashDigits + 1;
  if (name.size() <= kStemAt + kStem.size()) return false;
  return all_hex(name.substr(0, kHashDigits)) && name[kHashDigits] == '-' &&
         all_hex(name.substr(kHashDigits + 1, kHashDigits)) &&
         name.substr(kStemAt, kStem.size()) == kStem;
}

Result<std::string> model_fingerprint(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return fail(Code::kNotFound, fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  }
  struct stat about {};
  FileHash hash(fd);
  const bool known =
      ::fstat(fd, &about) == 0 && add_samples(hash, static_cast<std::uint64_t>(about.st_size));
  ::close(fd);
  if (!known) return fail(Code::kNotFound, fmt::format("cannot read all of {}", path));
#if defined(__APPLE__)
  const timespec changed = about.st_mtimespec;
#else
  const timespec changed = about.st_mtim;
#endif
  return fmt::format("{}:{}.{:09}:{}", about.st_size, changed.tv_sec, changed.tv_nsec, hash.text());
}

}  // namespace pensieve::worker
