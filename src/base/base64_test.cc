#include "base/base64.h"

#include <gtest/gtest.h>

namespace pensieve {
namespace {

TEST(Base64Test, TheVectorsOfTheSpecification) {
  const std::pair<const char*, const char*> vectors[] = {
      {"f", "Zg=="},        {"fo", "Zm8="},        {"foo", "Zm9v"},
      {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : vectors) {
    EXPECT_EQ(to_base64(bytes), text);
    EXPECT_EQ(from_base64(text), bytes);
  }
  EXPECT_EQ(to_base64(""), "");
}

TEST(Base64Test, EveryByteComesBack) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  EXPECT_EQ(from_base64(to_base64(bytes)), bytes);
}

TEST(Base64Test, WhatIsNoBase64IsNone) {
  // Nothing, a part of a quartet, white space, the alphabet for URLs, padding in the middle or
  // alone, bits that no byte needs, a byte above 127.
  for (const char* text : {"", "Zg", "Zg=", "Zm9v\n", "Zm 9", "Zm-_",
                           "Z===", "====", "Zg==Zg==", "Zm9=Zm9v", "Zh==", "Zm9=", "Zm9\xFF"}) {
    EXPECT_FALSE(is_base64(text)) << text;
    EXPECT_FALSE(from_base64(text)) << text;
  }
}

}  // namespace
}  // namespace pensieve
