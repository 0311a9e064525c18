#include "worker/frame.h"

#include <algorithm>
#include <thread>

#include <gtest/gtest.h>

#include "worker/testing/socket_pair.h"

namespace pensieve::worker {
namespace {

using HeaderBytes = std::array<std::byte, kFrameHeaderBytes>;

HeaderBytes good_header() {
  return encode_header({FrameType::kText, 258, 5});
}

std::string_view as_text(const HeaderBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(FrameTest, TheHeaderIsWhatTheDrawingSays) {
  const HeaderBytes expected = {std::byte{'P'}, std::byte{'E'}, std::byte{2},
                                std::byte{38},  std::byte{2},   std::byte{1}};
  HeaderBytes bytes = good_header();
  EXPECT_EQ(bytes[8], std::byte{5});
  bytes[8] = std::byte{0};
  EXPECT_EQ(bytes, expected) << "all else is zero";
}

TEST(FrameTest, AHeaderComesBackAsItWas) {
  for (const FrameType type :
       {FrameType::kPlan, FrameType::kShutdown, FrameType::kHello, FrameType::kText,
        FrameType::kHeartbeat, FrameType::kEmbed, FrameType::kEmbedded}) {
    const Result<FrameHeader> header = decode_header(encode_header({type, 0xFEDCBA98, 0x01020304}));
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->type, type);
    EXPECT_EQ(header->request, 0xFEDCBA98U);
    EXPECT_EQ(header->length, 0x01020304U);
  }
}

TEST(FrameTest, AnotherMagicVersionOrTypeIsRefused) {
  const auto refused = [](std::size_t at, int value) {
    HeaderBytes bytes = good_header();
    bytes[at] = static_cast<std::byte>(value);
    const Result<FrameHeader> header = decode_header(bytes);
    return !header && header.error().code == Code::kInvalidArgument;
  };
  EXPECT_TRUE(refused(0, 'Q'));
  EXPECT_TRUE(refused(1, 'e'));
  EXPECT_TRUE(refused(2, kProtocolVersion - 1));
  EXPECT_TRUE(refused(2, kProtocolVersion + 1));
  for (const int type : {0, 12, 31, 52, 255}) EXPECT_TRUE(refused(3, type)) << type;
  for (const int type : {1, 10, 32, 50}) EXPECT_FALSE(refused(3, type)) << type;
}

TEST(FrameTest, TheLongestPayloadIsAllowedAndOneByteMoreIsNot) {
  EXPECT_TRUE(decode_header(encode_header({FrameType::kText, 1, kFramePayloadBytesMax})));
  const Result<FrameHeader> longer =
      decode_header(encode_header({FrameType::kText, 1, kFramePayloadBytesMax + 1}));
  ASSERT_FALSE(longer);
  EXPECT_EQ(longer.error().code, Code::kInvalidArgument);
  EXPECT_FALSE(decode_header(encode_header({FrameType::kText, 1, UINT32_MAX})));
}

TEST(FrameTest, FramesComeThroughASocketWholeAndInOrder) {
  const SocketPair pair;
  const std::string with_zeros("a\0b\xFF", 4);
  ASSERT_TRUE(write_frame(pair.end(0), FrameType::kText, 3, with_zeros));
  ASSERT_TRUE(write_frame(pair.end(0), FrameType::kShutdown, 0, ""));
  const Result<Frame> first = read_frame(pair.end(1));
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->type, FrameType::kText);
  EXPECT_EQ(first->request, 3U);
  EXPECT_EQ(first->payload, with_zeros);
  const Result<Frame> second = read_frame(pair.end(1));
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->type, FrameType::kShutdown);
  EXPECT_EQ(second->payload, "");
}

TEST(FrameTest, AFrameLargerThanTheSocketsBufferComesInPartsAndWhole) {
  const SocketPair pair;
  std::string payload(3 << 20, '\0');
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(i % 251);
  std::thread writer([&] { EXPECT_TRUE(write_frame(pair.end(0), FrameType::kText, 1, payload)); });
  const Result<Frame> frame = read_frame(pair.end(1));
  writer.join();
  ASSERT_TRUE(frame) << frame.error().message;
  EXPECT_TRUE(frame->payload == payload);
}

TEST(FrameTest, TheEndBetweenFramesIsNotABadFrame) {
  SocketPair pair;
  ASSERT_TRUE(write_frame(pair.end(0), FrameType::kText, 1, "last"));
  pair.close_end(0);
  EXPECT_TRUE(read_frame(pair.end(1)));
  EXPECT_EQ(read_frame(pair.end(1)).error().code, Code::kUnavailable);
}

TEST(FrameTest, AFrameThatIsCutAnywhereIsABadFrame) {
  const std::string whole = encode_frame(FrameType::kText, 1, "12345");
  for (std::size_t size = 1; size < whole.size(); ++size) {
    SocketPair pair;
    pair.put(std::string_view(whole).substr(0, size));
    pair.close_end(0);
    const Result<Frame> frame = read_frame(pair.end(1));
    ASSERT_FALSE(frame) << size << " bytes";
    EXPECT_EQ(frame.error().code, Code::kInvalidArgument) << size << " bytes";
  }
}

TEST(FrameTest, ABadHeaderEndsReadingBeforeItsPayload) {
  const SocketPair pair;
  // No payload follows: reading on would wait for ever.
  pair.put(as_text(encode_header({FrameType::kText, 1, kFramePayloadBytesMax + 1})));
  EXPECT_EQ(read_frame(pair.end(1)).error().code, Code::kInvalidArgument);
}

TEST(FrameTest, WritingToAnEndThatIsGoneIsAnErrorAndNoSignal) {
  SocketPair pair;
  pair.close_end(1);
  EXPECT_EQ(write_frame(pair.end(0), FrameType::kText, 1, "x").error().code, Code::kUnavailable);
}

TEST(FrameTest, ReadingFromNoSocketIsUnavailable) {
  EXPECT_EQ(read_frame(-1).error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace pensieve::worker
