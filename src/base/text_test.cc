#include "base/text.h"

#include <gtest/gtest.h>

namespace pensieve {
namespace {

TEST(TrimmedTest, TakesSpacesOffTheEndsAlone) {
  EXPECT_EQ(trimmed(" \r\n\ta b\n"), "a b");
  EXPECT_EQ(trimmed("a"), "a");
  EXPECT_EQ(trimmed(" \n "), "");
  EXPECT_EQ(trimmed(""), "");
}

TEST(TrimmedTest, OtherSpacesMayBeMeant) {
  EXPECT_EQ(trimmed("\n a\t", " \t"), "\n a");
}

}  // namespace
}  // namespace pensieve
