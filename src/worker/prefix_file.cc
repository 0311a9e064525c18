#include "worker/prefix_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/core.h>
#include <xxhash.h>

#include "worker/prefix_key.h"

namespace pensieve::worker {
namespace {

using engine::Token;

constexpr std::string_view kMagic = "PENSPREF";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeadHashAt = 40;

static_assert(sizeof(Token) == 4, "tokens are written as they lie in memory");

template <class Number>
void put_number(std::string& out, Number number) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    out.push_back(static_cast<char>(static_cast<unsigned char>(number >> (8 * i))));
  }
}

template <class Number>
Number number_at(std::string_view bytes, std::size_t at) {
  Number number = 0;
  for (std::size_t i = sizeof(Number); i-- > 0;) {
    number = static_cast<Number>((static_cast<std::uint64_t>(number) << 8) |
                                 static_cast<unsigned char>(bytes[at + i]));
  }
  return number;
}

std::string_view bytes_of(std::span<const Token> tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()};
}

std::uint64_t head_hash(std::string_view fixed, std::string_view identity,
                        std::span<const Token> tokens) {
  std::uint64_t hash = XXH3_64bits(fixed.data(), kHeadHashAt);
  hash = XXH3_64bits_withSeed(identity.data(), identity.size(), hash);
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), hash);
}

Error system_error(std::string_view doing) {
  return {Code::kUnavailable, fmt::format("{}: {}", doing, std::strerror(errno))};
}

Error not_whole(std::string_view what) {
  return {Code::kInvalidArgument, std::string(what)};
}

/// Dirty pages count as memory that can be had, but only the disk can give them back: they are
/// sent on their way as they come, and the one before last is waited for, so that a slow disk is
/// seen here and not as a machine without memory.
void send_on_its_way([[maybe_unused]] int fd, [[maybe_unused]] std::uint64_t from,
                     [[maybe_unused]] std::size_t count) {
#if defined(__linux__)
  ::sync_file_range(fd, static_cast<off_t>(from), static_cast<off_t>(count), SYNC_FILE_RANGE_WRITE);
  constexpr std::uint64_t kUnderWay = 8 * kPrefixChunkBytes;
  if (from < kUnderWay) return;
  ::sync_file_range(
      fd, static_cast<off_t>(from - kUnderWay), static_cast<off_t>(count),
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
#endif
}

Result<void> write_all(int fd, std::string_view bytes, std::uint64_t& at, const GoOn& go_on) {
  while (!bytes.empty()) {
    if (!go_on()) return fail(Code::kDeadlineExceeded, "writing was given up");
    const ssize_t count = ::write(fd, bytes.data(), std::min(bytes.size(), kPrefixChunkBytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return std::unexpected(system_error("writing"));
    const auto written = static_cast<std::size_t>(count);
    send_on_its_way(fd, at, written);
    at += written;
    bytes.remove_prefix(written);
  }
  return {};
}

Result<void> read_all(int fd, std::span<char> out, const GoOn& go_on) {
  while (!out.empty()) {
    if (!go_on()) return fail(Code::kDeadlineExceeded, "reading was given up");
    const ssize_t count = ::read(fd, out.data(), std::min(out.size(), kPrefixChunkBytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return std::unexpected(system_error("reading"));
    if (count == 0) return std::unexpected(not_whole("it ends too early"));
    out = out.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

}  // namespace

Bytes prefix_file_bytes(std::string_view identity, std::size_t tokens, Bytes state_bytes) {
  return Bytes(kPrefixHeadBytes + identity.size() + tokens * sizeof(Token) + state_bytes.count());
}

Result<void> write_prefix_file(int fd, std::string_view identity, std::span<const Token> tokens,
                               std::string_view state, const GoOn& go_on) {
  PENSIEVE_CHECK(identity.size() <= kPrefixIdentityBytesMax && tokens.size() <= kPrefixTokensMax);
  std::string fixed(kMagic);
  put_number(fixed, kVersion);
  put_number(fixed, static_cast<std::uint32_t>(identity.size()));
  put_number(fixed, static_cast<std::uint32_t>(tokens.size()));
  put_number(fixed, std::uint32_t{0});
  put_number(fixed, static_cast<std::uint64_t>(state.size()));
  put_number(fixed, static_cast<std::uint64_t>(XXH3_64bits(state.data(), state.size())));
  put_number(fixed, head_hash(fixed, identity, tokens));
  PENSIEVE_CHECK(fixed.size() == kPrefixHeadBytes);
  std::uint64_t at = 0;
  for (const std::string_view part : {std::string_view(fixed), identity, bytes_of(tokens), state}) {
    if (Result<void> written = write_all(fd, part, at, go_on); !written) return written;
  }
  return {};
}

Result<PrefixHead> read_prefix_head(int fd, Bytes file_bytes, std::string_view identity,
                                    const GoOn& go_on) {
  std::array<char, kPrefixHeadBytes> buffer{};
  if (file_bytes.count() < buffer.size()) return std::unexpected(not_whole("it is too short"));
  if (Result<void> read = read_all(fd, buffer, go_on); !read) return std::unexpected(read.error());
  const std::string_view fixed(buffer.data(), buffer.size());
  const auto identity_bytes = number_at<std::uint32_t>(fixed, 12);
  const auto tokens = number_at<std::uint32_t>(fixed, 16);
  PrefixHead head;
  head.state_bytes = Bytes(number_at<std::uint64_t>(fixed, 24));
  head.state_hash = number_at<std::uint64_t>(fixed, 32);
  // The name of the file says version and identity already, so another one here is damage.
  if (fixed.substr(0, 8) != kMagic || number_at<std::uint32_t>(fixed, 8) != kVersion ||
      identity_bytes != identity.size() || tokens > kPrefixTokensMax ||
      head.state_bytes > file_bytes ||
      prefix_file_bytes(identity, tokens, head.state_bytes) != file_bytes) {
    return std::unexpected(not_whole("its head is damaged, or it is cut"));
  }
  std::string found(identity_bytes, '\0');
  if (Result<void> read = read_all(fd, found, go_on); !read) return std::unexpected(read.error());
  head.tokens.resize(tokens);
  const std::span<char> bytes(reinterpret_cast<char*>(head.tokens.data()),
                              head.tokens.size() * sizeof(Token));
  if (Result<void> read = read_all(fd, bytes, go_on); !read) return std::unexpected(read.error());
  if (found != identity ||
      number_at<std::uint64_t>(fixed, kHeadHashAt) != head_hash(fixed, identity, head.tokens)) {
    return std::unexpected(not_whole("its head does not have the hash that it names"));
  }
  return head;
}

Result<void> read_prefix_state(int fd, const PrefixHead& head, std::string& out,
                               const GoOn& go_on) {
  out.clear();
  out.resize(head.state_bytes.count());
  Result<void> read = read_all(fd, out, go_on);
  if (read && XXH3_64bits(out.data(), out.size()) != head.state_hash) {
    read = std::unexpected(not_whole("its state does not have the hash that it names"));
  }
  if (!read) std::string().swap(out);
  return read;
}

}  // namespace pensieve::worker
