#include "sandbox/model_files.h"

#include <gtest/gtest.h>

namespace pensieve::sandbox {
namespace {

using Files = std::vector<std::string>;

TEST(ModelFilesTest, AModelOfOneFileIsThatFile) {
  for (const char* path : {"/m/a.gguf", "a.gguf", "", ".gguf", "/m/test.script", "/m/folder"}) {
    EXPECT_EQ(model_files(path), Files{path});
  }
}

TEST(ModelFilesTest, APartOfASplitModelBringsTheOthers) {
  EXPECT_EQ(
      model_files("/m/a-00002-of-00003.gguf"),
      (Files{"/m/a-00002-of-00003.gguf", "/m/a-00001-of-00003.gguf", "/m/a-00003-of-00003.gguf"}));
}

TEST(ModelFilesTest, WhatOnlyLooksLikeAPartBringsNothing) {
  for (const char* path :
       {"/m/a-0001-of-0003.gguf", "/m/a_00001-of-00003.gguf", "/m/a-00001-to-00003.gguf",
        "/m/a-0000x-of-00003.gguf", "-00001-of-00003.gguf", "/m/a-00001-of-01001.gguf"}) {
    EXPECT_EQ(model_files(path), Files{path});
  }
  EXPECT_EQ(model_files("/m/a-00001-of-01000.gguf").size(), 1000U);
}

}  // namespace
}  // namespace pensieve::sandbox
