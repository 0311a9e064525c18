#include "worker/prefix_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;

constexpr std::string_view kIdentity = "model a, build 1";

class PrefixFile : public testing::Test {
 protected:
  const GoOn always = [] { return true; };

  void write(const std::vector<Token>& tokens, std::string_view state) {
    const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const Result<void> written = write_prefix_file(fd, kIdentity, tokens, state, always);
    EXPECT_TRUE(written) << written.error().message;
    ::close(fd);
  }
  Result<PrefixHead> read(std::string& state, std::string_view identity = kIdentity) {
    const int fd = ::open(path_.c_str(), O_RDONLY);
    const Bytes bytes(std::filesystem::file_size(path_));
    Result<PrefixHead> head = read_prefix_head(fd, bytes, identity, always);
    if (head) {
      if (Result<void> more = read_prefix_state(fd, *head, state, always); !more) {
        head = std::unexpected(more.error());
      }
    }
    ::close(fd);
    return head;
  }
  void expect_damaged(const std::string& text, const std::string& what) {
    // In place: file systems send a file that is cut and closed to the disk at once.
    const int fd = ::open(path_.c_str(), O_WRONLY);
    ASSERT_EQ(::pwrite(fd, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(text.size())), 0);
    ::close(fd);
    std::string state = "left over";
    const Result<PrefixHead> head = read(state);
    ASSERT_FALSE(head) << what;
    EXPECT_EQ(head.error().code, Code::kInvalidArgument) << what;
  }

  TempFolder temp_;
  const std::string path_ = temp_.at("file");
  const std::vector<Token> tokens_ = prefix_tokens(1, 20);
  const std::string state_ = state_of(tokens_);
};

TEST_F(PrefixFile, ComesBackAsItWasWritten) {
  write(tokens_, state_);
  EXPECT_EQ(Bytes(std::filesystem::file_size(path_)),
            prefix_file_bytes(kIdentity, tokens_.size(), Bytes(state_.size())));
  std::string state;
  const Result<PrefixHead> head = read(state);
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->tokens, tokens_);
  EXPECT_EQ(state, state_);
}

TEST_F(PrefixFile, OfManyChunksComesBackAsItWasWritten) {
  std::string large(3 * kPrefixChunkBytes + 17, 's');
  for (std::size_t i = 0; i < large.size(); i += 1000) large[i] = static_cast<char>(i / 1000);
  write(tokens_, large);
  std::string state;
  ASSERT_TRUE(read(state));
  EXPECT_EQ(state, large);
}

TEST_F(PrefixFile, WithOneBitFlippedAnywhereIsDamaged) {
  write(tokens_, state_);
  const std::string whole = read_text(path_);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    expect_damaged(flipped, "byte " + std::to_string(at));
    if (HasFatalFailure()) return;
  }
}

TEST_F(PrefixFile, OfAnotherLengthIsDamaged) {
  write(tokens_, state_);
  const std::string whole = read_text(path_);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    expect_damaged(whole.substr(0, length), "cut to " + std::to_string(length));
    if (HasFatalFailure()) return;
  }
  expect_damaged(whole + "x", "a byte too many");
}

TEST_F(PrefixFile, WithAnEnormousLengthInItsHeadTakesNoMemory) {
  write(tokens_, state_);
  const std::string whole = read_text(path_);
  for (const std::size_t at : {12U, 16U, 24U}) {
    std::string enormous = whole;
    enormous.replace(at, 4, "\xff\xff\xff\xff");
    expect_damaged(enormous, "length at " + std::to_string(at));
  }
  std::string negative = whole;
  negative.replace(24, 8, "\xff\xff\xff\xff\xff\xff\xff\xff");
  expect_damaged(negative, "a state of 2^64 bytes");
}

TEST_F(PrefixFile, OfAnotherIdentityIsNotReadAsOurs) {
  write(tokens_, state_);
  std::string state;
  EXPECT_FALSE(read(state, "model b, build 1"));
  EXPECT_FALSE(read(state, "model a, build 12"));
  EXPECT_TRUE(state.empty());
}

TEST_F(PrefixFile, IsGivenUpBetweenChunks) {
  write(tokens_, std::string(5 * kPrefixChunkBytes, 's'));
  const int fd = ::open(path_.c_str(), O_RDWR);
  int asked = 0;
  const GoOn three_times = [&] { return ++asked <= 3; };
  const Bytes bytes(std::filesystem::file_size(path_));
  const Result<PrefixHead> head = read_prefix_head(fd, bytes, kIdentity, always);
  ASSERT_TRUE(head);
  std::string state;
  const Result<void> read = read_prefix_state(fd, *head, state, three_times);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(state.empty());
  asked = 0;
  const Result<void> written = write_prefix_file(
      fd, kIdentity, tokens_, std::string(5 * kPrefixChunkBytes, 's'), three_times);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Code::kDeadlineExceeded);
  ::close(fd);
}

TEST_F(PrefixFile, ThatCannotBeWrittenOrReadIsTheDisksFault) {
  const int wrong_way = ::open(path_.c_str(), O_RDONLY | O_CREAT, 0600);
  const Result<void> written = write_prefix_file(wrong_way, kIdentity, tokens_, state_, always);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Code::kUnavailable);
  ::close(wrong_way);
  const int write_only = ::open(path_.c_str(), O_WRONLY);
  const Result<PrefixHead> head = read_prefix_head(write_only, Bytes(1000), kIdentity, always);
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, Code::kUnavailable);
  ::close(write_only);
}

}  // namespace
}  // namespace pensieve::worker
