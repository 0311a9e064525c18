// Prefixes for tests: tokens, a state that follows from them, and a store over a folder of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "worker/prefix_store.h"
#include "worker/testing/shared_fakes.h"
#include "worker/testing/temp_folder.h"

namespace pensieve::worker {

/// `count` tokens that no prefix with another `first` shares.
inline std::vector<engine::Token> prefix_tokens(engine::Token first, std::size_t count) {
  std::vector<engine::Token> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first * 100'000);
  return tokens;
}

/// The state that belongs to the tokens; 16 bytes a token.
inline std::string state_of(const std::vector<engine::Token>& tokens) {
  std::string state;
  for (const engine::Token token : tokens) {
    std::string part = std::to_string(token);
    part.resize(16, '.');
    state += part;
  }
  return state;
}

inline std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string read_text(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_text(const std::string& path, std::string_view text) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream << text;
  PENSIEVE_CHECK(stream.flush().good());
}

class PrefixStoreTest : public testing::Test {
 protected:
  static constexpr Duration kLong = std::chrono::seconds(30);

  PrefixStoreTest() { clock_.advance(std::chrono::hours(1)); }

  std::string folder() const { return temp_.at("prefixes"); }

  std::unique_ptr<PrefixStore> make_store(std::string identity = "model a",
                                          bool can_go_back = true) {
    auto store =
        std::make_unique<PrefixStore>(clock_, PrefixStore::Options{.directory = folder(),
                                                                   .identity = std::move(identity),
                                                                   .can_go_back = can_go_back});
    store->set_budgets(parked_max_, stored_max_);
    settle(*store);
    return store;
  }
  static void settle(PrefixStore& store) { ASSERT_TRUE(store.wait_written(kLong)); }

  static bool put(PrefixStore& store, const std::vector<engine::Token>& tokens,
                  PrefixStore::Keep keep = PrefixStore::Keep::kParked) {
    const std::string state = state_of(tokens);
    return store.put(tokens, Bytes(state.size()), keep, [&](std::string& out) {
      out = state;
      return Result<void>();
    });
  }
  /// Written to disk now, and still parked.
  static void store_all(PrefixStore& store) {
    store.write_all();
    settle(store);
  }
  /// What put() charges for so many tokens, measured.
  Bytes charge_of(std::size_t tokens) {
    PrefixStore store(clock_, {});
    store.set_budgets(1_GiB, Bytes());
    EXPECT_TRUE(put(store, prefix_tokens(1, tokens)));
    return store.stats().parked_bytes;
  }
  static Bytes file_of(std::size_t tokens, std::string_view identity = "model a") {
    return prefix_file_bytes(identity, tokens, Bytes(16 * tokens));
  }

  /// The state as a request would get it: from memory, or read from disk first; empty: a miss.
  static std::string restored(PrefixStore& store, const std::vector<engine::Token>& prompt,
                              std::uint32_t* common = nullptr) {
    auto match = store.find(prompt, 0);
    if (match && !match->parked) {
      if (!store.fetch(match->name)) return "";
      settle(store);
      match = store.find(prompt, 0);
    }
    if (!match || !match->parked) return "";
    if (common != nullptr) *common = match->tokens;
    const auto parked = store.parked(match->name);
    return parked ? parked->state : "";
  }

  TempFolder temp_;
  SharedClock clock_;
  Bytes parked_max_ = 16_MiB;
  Bytes stored_max_ = 64_MiB;
};

}  // namespace pensieve::worker
