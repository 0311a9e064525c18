#include "worker/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/core.h>

namespace pensieve::worker {
namespace {

void put_u32(std::byte* out, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
}

std::uint32_t u32_at(const std::byte* in) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= std::to_integer<std::uint32_t>(in[i]) << (8 * i);
  return value;
}

bool is_known(std::uint8_t type) {
  return (type >= 1 && type <= static_cast<std::uint8_t>(FrameType::kEmbed)) ||
         (type >= static_cast<std::uint8_t>(FrameType::kHello) &&
          type <= static_cast<std::uint8_t>(FrameType::kEmbedded));
}

/// Reads exactly `size` bytes; returns how many came before the end of file.
Result<std::size_t> read_exactly(int fd, std::byte* out, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(fd, out + done, size - done);
    if (got == 0) return done;
    if (got < 0) {
      if (errno == EINTR) continue;
      return fail(Code::kUnavailable, fmt::format("reading a frame: {}", std::strerror(errno)));
    }
    done += static_cast<std::size_t>(got);
  }
  return done;
}

}  // namespace

std::array<std::byte, kFrameHeaderBytes> encode_header(const FrameHeader& header) {
  std::array<std::byte, kFrameHeaderBytes> bytes{};
  bytes[0] = static_cast<std::byte>(kFrameMagic & 0xffU);
  bytes[1] = static_cast<std::byte>(kFrameMagic >> 8);
  bytes[2] = static_cast<std::byte>(kProtocolVersion);
  bytes[3] = static_cast<std::byte>(header.type);
  put_u32(&bytes[4], header.request);
  put_u32(&bytes[8], header.length);
  return bytes;
}

Result<FrameHeader> decode_header(std::span<const std::byte, kFrameHeaderBytes> bytes) {
  const unsigned magic =
      std::to_integer<unsigned>(bytes[0]) | (std::to_integer<unsigned>(bytes[1]) << 8);
  if (magic != kFrameMagic) {
    return fail(Code::kInvalidArgument, fmt::format("not a frame: it starts with {:#06x}", magic));
  }
  const auto version = std::to_integer<std::uint8_t>(bytes[2]);
  if (version != kProtocolVersion) {
    return fail(Code::kInvalidArgument,
                fmt::format("frame of protocol version {}, this side speaks {}", version,
                            kProtocolVersion));
  }
  const auto type = std::to_integer<std::uint8_t>(bytes[3]);
  if (!is_known(type)) {
    return fail(Code::kInvalidArgument, fmt::format("unknown frame type {}", type));
  }
  const std::uint32_t length = u32_at(&bytes[8]);
  if (length > kFramePayloadBytesMax) {
    return fail(Code::kInvalidArgument, fmt::format("frame of {} bytes; at most {} are allowed",
                                                    length, kFramePayloadBytesMax));
  }
  return FrameHeader{static_cast<FrameType>(type), u32_at(&bytes[4]), length};
}

std::string encode_frame(FrameType type, std::uint32_t request, std::string_view payload) {
  PENSIEVE_CHECK(payload.size() <= kFramePayloadBytesMax);
  const auto header = encode_header({type, request, static_cast<std::uint32_t>(payload.size())});
  std::string bytes;
  bytes.reserve(header.size() + payload.size());
  bytes.append(reinterpret_cast<const char*>(header.data()), header.size());
  bytes.append(payload);
  return bytes;
}

Result<void> write_frame(int fd, FrameType type, std::uint32_t request, std::string_view payload) {
  const std::string bytes = encode_frame(type, request, payload);
  std::size_t done = 0;
  while (done < bytes.size()) {
    // MSG_NOSIGNAL: a gateway that is gone is an error value here, not a SIGPIPE.
    const ssize_t put = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EINTR) continue;
      return fail(Code::kUnavailable, fmt::format("writing a frame: {}", std::strerror(errno)));
    }
    done += static_cast<std::size_t>(put);
  }
  return {};
}

Result<Frame> read_frame(int fd) {
  std::array<std::byte, kFrameHeaderBytes> bytes{};
  const Result<std::size_t> got = read_exactly(fd, bytes.data(), bytes.size());
  if (!got) return std::unexpected(got.error());
  if (*got == 0) return fail(Code::kUnavailable, "the other end has closed the socket");
  if (*got < bytes.size()) return fail(Code::kInvalidArgument, "the socket ended inside a header");
  const Result<FrameHeader> header = decode_header(bytes);
  if (!header) return std::unexpected(header.error());

  Frame frame{header->type, header->request, std::string(header->length, '\0')};
  const Result<std::size_t> payload =
      read_exactly(fd, reinterpret_cast<std::byte*>(frame.payload.data()), header->length);
  if (!payload) return std::unexpected(payload.error());
  if (*payload < header->length) {
    return fail(Code::kInvalidArgument, "the socket ended inside a payload");
  }
  return frame;
}

}  // namespace pensieve::worker
