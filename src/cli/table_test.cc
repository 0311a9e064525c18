// Columns, sizes and ages as people read them; text that cannot steer a terminal.
#include "cli/table.h"

#include <gtest/gtest.h>

#include "cli/console.h"

namespace pensieve::cli {
namespace {

TEST(TableTest, ColumnsAlignByCharactersNotBytes) {
  EXPECT_EQ(aligned({{"NAME", "N"}, {"\xc3\xa9t\xc3\xa9", "10"}, {"x", ""}}, {false, true}),
            "NAME   N\n\xc3\xa9t\xc3\xa9   10\nx\n");
}

TEST(TableTest, SizesArePowersOf1024) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(1024), "1.0 KB");
  EXPECT_EQ(size_text(3 << 19), "1.5 MB");
  EXPECT_EQ(size_text(9ULL << 28), "2.25 GB");
  EXPECT_EQ(size_text(std::nullopt), "?");
}

TEST(TableTest, AgesHaveTheirTwoLargestParts) {
  EXPECT_EQ(age_text(59), "59 s");
  EXPECT_EQ(age_text(60), "1 min");
  EXPECT_EQ(age_text(3600 * 3 + 61), "3 h 1 min");
  EXPECT_EQ(age_text(3600 * 49), "2 d 1 h");
  EXPECT_EQ(age_text(std::nullopt), "?");
}

TEST(ConsoleTest, ControlCharactersGoAndTextStays) {
  EXPECT_EQ(without_controls("a\x1b[31mb\tc\nd\r\x7f\xc2\x9b"), "a[31mb\tc\nd");
  EXPECT_EQ(without_controls("\xc3\xa9\xf0\x9f\x98\x80\xc2\xa0"),
            "\xc3\xa9\xf0\x9f\x98\x80\xc2\xa0");
}

}  // namespace
}  // namespace pensieve::cli
