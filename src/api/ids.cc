#include "api/response.h"

#include <array>
#include <random>

namespace pensieve::api {
namespace {

constexpr std::string_view kBase62 =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
static_assert(kBase62.size() == 62);
constexpr int kIdCharacters = 24;  // 142 bits: no two ids meet, across threads and restarts.

/// Seeded with as much as an id holds. Ids must be unique, not secret.
std::mt19937_64 seeded_generator() {
  std::random_device device;
  std::array<std::random_device::result_type, 8> words;
  for (auto& word : words) word = device();
  std::seed_seq seed(words.begin(), words.end());
  return std::mt19937_64(seed);
}

}  // namespace

std::string new_id(std::string_view prefix) {
  thread_local std::mt19937_64 generator = seeded_generator();
  std::uniform_int_distribution<std::size_t> character(0, kBase62.size() - 1);
  std::string id(prefix);
  for (int i = 0; i < kIdCharacters; ++i) id += kBase62[character(generator)];
  return id;
}

}  // namespace pensieve::api
