#include "memory/kernel_file.h"

#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "memory/kernel_text.h"
#include "memory/testing/fake_kernel_files.h"

namespace pensieve::memory {
namespace {

class KernelFileTest : public testing::Test {
 protected:
  KernelFile open(std::string_view path) { return *KernelFile::open(files_.at(path)); }

  FakeKernelFiles files_;
  KernelText buffer_;
};

TEST_F(KernelFileTest, EachReadSeesTheTextAsItIsNow) {
  files_.write("limit", "100\n");
  const KernelFile file = open("limit");
  EXPECT_EQ(file.read(buffer_).value(), "100\n");
  files_.write("limit", "max\n");
  EXPECT_EQ(file.read(buffer_).value(), "max\n");
}

TEST_F(KernelFileTest, AnAbsentFileIsNotFoundAndOneThatCannotBeReadIsUnavailable) {
  EXPECT_EQ(KernelFile::open(files_.at("absent")).error().code, Code::kNotFound);
  const KernelFile folder = open("");
  EXPECT_EQ(folder.read(buffer_).error().code, Code::kUnavailable);
}

TEST_F(KernelFileTest, ATextThatDoesNotFitIsAnErrorAndNeverCutShort) {
  files_.write("fits", std::string(buffer_.size() - 1, 'x'));
  files_.write("too-long", std::string(buffer_.size(), 'x'));
  EXPECT_EQ(open("fits").read(buffer_)->size(), buffer_.size() - 1);
  EXPECT_EQ(open("too-long").read(buffer_).error().code, Code::kUnavailable);
}

TEST_F(KernelFileTest, ALongTextIsReadWhole) {
  for (const std::size_t size : {0UL, 8191UL, 8192UL, 8193UL, 100'000UL}) {
    const std::string text(size, 'x');
    files_.write("long", text);
    EXPECT_EQ(open("long").read_long().value(), text);
  }
}

TEST_F(KernelFileTest, MovingHandsTheDescriptorOver) {
  files_.write("a", "a");
  files_.write("b", "b");
  KernelFile file = open("a");
  file = open("b");
  EXPECT_EQ(file.read(buffer_).value(), "b");
  const KernelFile moved(std::move(file));
  EXPECT_EQ(moved.read(buffer_).value(), "b");
  EXPECT_EQ(moved.path(), files_.at("b"));
}

TEST(KernelTextTest, ACountIsDigitsAndNothingElse) {
  EXPECT_EQ(parse_count("0"), 0u);
  EXPECT_EQ(parse_count("18446744073709551615"), UINT64_MAX);
  for (const std::string_view nonsense :
       {"", " 1", "1 ", "+1", "-1", "0x1", "1.5", "max", "18446744073709551616"}) {
    EXPECT_EQ(parse_count(nonsense), std::nullopt) << nonsense;
  }
}

TEST(KernelTextTest, ALineWithoutItsNewlineIsNoLine) {
  EXPECT_EQ(line_after("a 1\nb 2\n", "b "), "2");
  EXPECT_EQ(line_after("a 1\nb 2", "b "), std::nullopt);
  EXPECT_EQ(line_after("a 1\nb 2\n", "c "), std::nullopt);
  EXPECT_EQ(line_after("xa 1\n", "a "), std::nullopt) << "a key stands at the start of a line";
}

}  // namespace
}  // namespace pensieve::memory
