#include "worker/prefix_key.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "worker/testing/prefixes.h"

namespace pensieve::worker {
namespace {

using engine::Token;

TEST(PrefixKey, MarksSayHowManyTokensTwoPrefixesShareInWholeBlocks) {
  std::vector<Token> a = prefix_tokens(1, 300);
  std::vector<Token> b = a;
  const auto common = [&] { return common_marked_tokens(prefix_marks(a), prefix_marks(b)); };
  EXPECT_EQ(common(), 256U);
  b[192] += 1;
  EXPECT_EQ(common(), 192U);
  b[191] += 1;
  EXPECT_EQ(common(), 128U);
  b[0] += 1;
  EXPECT_EQ(common(), 0U);
}

TEST(PrefixKey, EqualBlocksAfterADifferenceAreNotShared) {
  const std::vector<Token> a(256, 7);
  std::vector<Token> b = a;
  b[3] = 8;
  EXPECT_EQ(common_marked_tokens(prefix_marks(a), prefix_marks(b)), 0U);
  EXPECT_NE(prefix_marks(a)[1], prefix_marks(a)[2]);
}

TEST(PrefixKey, ABlockThatIsNotWholeHasNoMark) {
  EXPECT_TRUE(prefix_marks(prefix_tokens(1, 63)).empty());
  EXPECT_EQ(prefix_marks(prefix_tokens(1, 64)).size(), 1U);
  EXPECT_EQ(prefix_marks(prefix_tokens(1, 127)).size(), 1U);
}

TEST(PrefixKey, NamesFollowFromIdentityAndTokens) {
  const PrefixNames a("model a");
  const PrefixNames b("model b");
  const std::vector<Token> tokens = prefix_tokens(1, 100);
  EXPECT_EQ(a.name(tokens), PrefixNames("model a").name(tokens));
  EXPECT_NE(a.name(tokens), b.name(tokens));
  EXPECT_NE(a.name(tokens), a.name(std::span(tokens).first(99)));
  EXPECT_TRUE(a.ours(a.name(tokens)));
  EXPECT_FALSE(b.ours(a.name(tokens)));
  EXPECT_TRUE(is_prefix_name(b.name(tokens)));
}

TEST(PrefixKey, WhatIsNotNamedLikeAPrefixIsNone) {
  const std::string name = PrefixNames("model a").name(prefix_tokens(1, 100));
  EXPECT_TRUE(is_prefix_name(name + ".writing-1-1"));
  EXPECT_FALSE(PrefixNames("model a").ours(name + ".writing-1-1"));
  // Of another version of the format: it counts, and is never read.
  const std::string other = name.substr(0, name.size() - 1) + "2";
  EXPECT_TRUE(is_prefix_name(other));
  EXPECT_FALSE(PrefixNames("model a").ours(other));
  EXPECT_FALSE(is_prefix_name("notes.txt"));
  EXPECT_FALSE(is_prefix_name(""));
  EXPECT_FALSE(is_prefix_name("x" + name.substr(1)));
  EXPECT_FALSE(is_prefix_name(name.substr(0, 65) + ".old"));
}

class ModelFingerprint : public testing::Test {
 protected:
  std::string of(const std::string& path) {
    const Result<std::string> print = model_fingerprint(path);
    EXPECT_TRUE(print) << print.error().message;
    return print ? *print : "";
  }
  std::string write(std::size_t bytes, std::size_t changed_at) {
    std::string text(bytes, 'w');
    if (changed_at < bytes) text[changed_at] = 'x';
    const std::string path = temp_.write("model", text);
    std::filesystem::last_write_time(path, std::filesystem::file_time_type{});
    return path;
  }
  TempFolder temp_;
};

TEST_F(ModelFingerprint, IsTheSameForTheSameFileAndFollowsItsContent) {
  constexpr std::size_t kSize = 5 << 20;
  const std::string before = of(write(kSize, kSize));
  EXPECT_EQ(before, of(write(kSize, kSize)));
  EXPECT_NE(before, of(write(kSize + 1, kSize + 1)));
  EXPECT_NE(before, of(write(kSize, 0)));
  EXPECT_NE(before, of(write(kSize, kSize - 1)));
  EXPECT_NE(before, of(write(kSize, std::size_t{1} << 20)));  // The first sample.
}

TEST_F(ModelFingerprint, FollowsTheTimeOfChange) {
  const std::string path = write(1000, 1000);
  const std::string before = of(path);
  std::filesystem::last_write_time(path, std::filesystem::file_time_type{} + std::chrono::hours(1));
  EXPECT_NE(before, of(path));
}

TEST_F(ModelFingerprint, OfAFileThatIsMissingIsAnError) {
  const Result<std::string> print = model_fingerprint(temp_.at("nothing"));
  ASSERT_FALSE(print);
  EXPECT_EQ(print.error().code, Code::kNotFound);
}

}  // namespace
}  // namespace pensieve::worker
