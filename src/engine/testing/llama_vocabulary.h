// The vocabulary and the chat template of a small real model, without its weights.
#pragma once

#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>

#include "engine/llama_plan.h"

namespace pensieve::engine {

class VocabularyTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* const path = std::getenv("PENSIEVE_TEST_MODEL");
    if (path == nullptr || !std::ifstream(path)) return;
    start_llama();
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    model_ = llama_model_load_from_file(path, params);
  }
  static void TearDownTestSuite() {
    llama_model_free(model_);
    model_ = nullptr;
  }
  void SetUp() override { ASSERT_NE(model_, nullptr) << "no test model: run ./dev setup"; }

  static inline llama_model* model_ = nullptr;
};

}  // namespace pensieve::engine
