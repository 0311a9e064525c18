#include "worker/prefix_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;

class PrefixFolderTest : public testing::Test {
 protected:
  PrefixFolderTest() { EXPECT_TRUE(make_prefix_folder(path_)); }

  /// Writes a prefix whose file was used `age` hours ago.
  std::string write(PrefixFolder& folder, Token first, std::size_t count, int age = 0) {
    const std::vector<Token> tokens = prefix_tokens(first, count);
    const Result<void> written = folder.write(tokens, state_of(tokens), always);
    EXPECT_TRUE(written) << written.error().message;
    const std::string name = folder.names().name(tokens);
    const auto now = std::filesystem::last_write_time(path_ + "/" + name);
    std::filesystem::last_write_time(path_ + "/" + name, now - std::chrono::hours(age));
    return name;
  }
  static Bytes size_of(std::size_t tokens) {
    return prefix_file_bytes("model a", tokens, Bytes(16 * tokens));
  }
  std::vector<std::string> names_left() { return files_in(path_); }

  const GoOn always = [] { return true; };
  TempFolder temp_;
  const std::string path_ = temp_.at("cache/prefixes");
  PrefixFolder folder_{path_, "model a"};
};

TEST_F(PrefixFolderTest, IsForItsOwnerAlone) {
  struct stat about {};
  ASSERT_EQ(::stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777U, 0700U);
  const std::string name = write(folder_, 1, 100);
  ASSERT_EQ(::stat((path_ + "/" + name).c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777U, 0600U);
}

TEST_F(PrefixFolderTest, ThatOthersMayWriteToIsRefused) {
  ASSERT_EQ(::chmod(path_.c_str(), 0770), 0);
  EXPECT_FALSE(make_prefix_folder(path_));
  ASSERT_EQ(::chmod(path_.c_str(), 0702), 0);
  EXPECT_FALSE(make_prefix_folder(path_));
  ASSERT_EQ(::chmod(path_.c_str(), 0755), 0);
  EXPECT_TRUE(make_prefix_folder(path_));
}

TEST_F(PrefixFolderTest, CannotBeMadeWhereAFileStands) {
  const std::string file = temp_.write("file", "text");
  EXPECT_FALSE(make_prefix_folder(file));
  EXPECT_FALSE(make_prefix_folder(file + "/below"));
}

TEST_F(PrefixFolderTest, GivesBackWhatWasWrittenAndMarksItAsUsed) {
  const std::string name = write(folder_, 1, 100, 5);
  const auto before = std::filesystem::last_write_time(path_ + "/" + name);
  ASSERT_TRUE(folder_.read_head(name, always));
  EXPECT_EQ(std::filesystem::last_write_time(path_ + "/" + name), before);
  std::string state;
  const Result<PrefixHead> head = folder_.read(name, size_of(100), state, always);
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->tokens, prefix_tokens(1, 100));
  EXPECT_EQ(state, state_of(prefix_tokens(1, 100)));
  EXPECT_GT(std::filesystem::last_write_time(path_ + "/" + name), before);
}

TEST_F(PrefixFolderTest, ReadsNothingThatIsLargerThanTheRoomForIt) {
  const std::string name = write(folder_, 1, 100);
  std::string state;
  const Result<PrefixHead> head =
      folder_.read(name, Bytes(size_of(100).count() - 1), state, always);
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, Code::kOutOfMemory);
  EXPECT_TRUE(state.empty());
  EXPECT_EQ(names_left().size(), 1U);
}

TEST_F(PrefixFolderTest, RemovesADamagedFileAndLeavesAForeignOneAlone) {
  const std::string name = write(folder_, 1, 100);
  PrefixFolder other(path_, "model b");
  const std::string foreign = write(other, 1, 100);
  std::string damaged = read_text(path_ + "/" + name);
  damaged.back() = static_cast<char>(damaged.back() + 1);
  write_text(path_ + "/" + name, damaged);
  std::string state;
  const Result<PrefixHead> head = folder_.read(name, size_of(100), state, always);
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, Code::kInvalidArgument);
  EXPECT_EQ(names_left(), std::vector{foreign});
}

TEST_F(PrefixFolderTest, AFileUnderTheNameOfOtherTokensIsDamaged) {
  const std::string name = write(folder_, 1, 100);
  const std::string other = folder_.names().name(prefix_tokens(2, 100));
  std::filesystem::rename(path_ + "/" + name, path_ + "/" + other);
  const Result<PrefixHead> head = folder_.read_head(other, always);
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, Code::kInvalidArgument);
  EXPECT_TRUE(names_left().empty());
}

TEST_F(PrefixFolderTest, FollowsNoLinks) {
  const std::string name = folder_.names().name(prefix_tokens(1, 100));
  const std::string elsewhere = temp_.write("elsewhere", "text");
  std::filesystem::create_symlink(elsewhere, path_ + "/" + name);
  EXPECT_FALSE(folder_.read_head(name, always));
  const Result<PrefixFolder::Contents> contents = folder_.list();
  ASSERT_TRUE(contents);
  EXPECT_TRUE(contents->files.empty());
  EXPECT_EQ(read_text(elsewhere), "text");
}

TEST_F(PrefixFolderTest, AFileThatIsGoneIsNotFound) {
  std::string state;
  const Result<PrefixHead> head = folder_.read("nothing", 1_MiB, state, always);
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().code, Code::kNotFound);
  EXPECT_TRUE(folder_.remove("nothing"));
}

TEST_F(PrefixFolderTest, CountsAllPrefixesAndNothingElse) {
  PrefixFolder other(path_, "model b");
  const std::string second = write(folder_, 1, 100, 1);
  const std::string first = write(other, 1, 200, 2);
  write_text(path_ + "/notes.txt", "mine");
  const Result<PrefixFolder::Contents> contents = folder_.list();
  ASSERT_TRUE(contents);
  ASSERT_EQ(contents->files.size(), 2U);
  EXPECT_EQ(contents->files[0].name, first);
  EXPECT_FALSE(contents->files[0].ours);
  EXPECT_EQ(contents->files[1].name, second);
  EXPECT_TRUE(contents->files[1].ours);
  EXPECT_EQ(contents->bytes.count(), size_of(100).count() + size_of(200).count());
}

TEST_F(PrefixFolderTest, MakesRoomOfTheLeastRecentlyUsedFirstAndToTheByte) {
  PrefixFolder other(path_, "model b");
  const std::string newest = write(folder_, 1, 100, 1);
  const std::string oldest = write(other, 2, 100, 3);
  const std::string middle = write(folder_, 3, 100, 2);
  write_text(path_ + "/notes.txt", "mine");
  const std::uint64_t one = size_of(100).count();
  ASSERT_TRUE(folder_.make_room(Bytes(4 * one), Bytes(one)));
  EXPECT_EQ(names_left().size(), 4U);
  const Result<PrefixFolder::Contents> left = folder_.make_room(Bytes(4 * one), Bytes(one + 1));
  ASSERT_TRUE(left);
  EXPECT_EQ(left->bytes, Bytes(2 * one));
  EXPECT_EQ(left->files.front().name, middle);
  EXPECT_FALSE(std::filesystem::exists(path_ + "/" + oldest));
  ASSERT_TRUE(folder_.make_room(Bytes(one), Bytes()));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/" + middle));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/" + newest));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/notes.txt"));
}

TEST_F(PrefixFolderTest, MakesNoRoomForWhatCanNeverFit) {
  write(folder_, 1, 100);
  const Result<PrefixFolder::Contents> left = folder_.make_room(Bytes(1000), Bytes(1001));
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().code, Code::kOutOfMemory);
  EXPECT_EQ(names_left().size(), 1U);
}

TEST_F(PrefixFolderTest, SweepsWhatADeadServerLeftAndSparesWhatALivingOneWrites) {
  const std::string name = folder_.names().name(prefix_tokens(1, 100));
  write_text(path_ + "/" + name + ".writing-1-1", "half");
  const std::string living = path_ + "/" + name + ".writing-2-2";
  write_text(living, "half");
  const int fd = ::open(living.c_str(), O_RDWR);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);
  const Result<PrefixFolder::Contents> contents = folder_.list();
  ASSERT_TRUE(contents);
  ASSERT_EQ(contents->files.size(), 1U);
  EXPECT_TRUE(contents->files[0].temporary);
  EXPECT_EQ(contents->bytes, Bytes(4));
  // It counts, and it is not evicted.
  EXPECT_FALSE(folder_.make_room(Bytes(10), Bytes(7)));
  EXPECT_TRUE(std::filesystem::exists(living));
  ::close(fd);
  EXPECT_TRUE(folder_.make_room(Bytes(10), Bytes(7)));
  EXPECT_TRUE(names_left().empty());
}

TEST_F(PrefixFolderTest, LeavesNothingBehindWhenWritingIsGivenUp) {
  const std::vector<Token> tokens = prefix_tokens(1, 100);
  const Result<void> written = folder_.write(tokens, state_of(tokens), [] { return false; });
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(names_left().empty());
}

TEST_F(PrefixFolderTest, ThatIsGoneIsAnErrorAndNotACrash) {
  std::filesystem::remove_all(path_);
  const std::vector<Token> tokens = prefix_tokens(1, 100);
  EXPECT_FALSE(folder_.list());
  EXPECT_FALSE(folder_.make_room(1_MiB, Bytes()));
  EXPECT_FALSE(folder_.write(tokens, state_of(tokens), always));
}

}  // namespace
}  // namespace pensieve::worker
