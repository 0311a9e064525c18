// Names for prefixes: what a saved state depends on, what it is called, and what it begins with.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::worker {

/// Tokens per mark. Choice: a mark per 64 tokens makes the index 1/8 byte per token, and a prefix
/// that is found up to 63 tokens short costs nothing, because the exact length is read later.
inline constexpr std::uint32_t kMarkTokens = 64;

/// One hash for each whole block of kMarkTokens tokens, over all tokens up to its end. Equal marks
/// at one place mean equal tokens up to there, so two lists of marks differ from one place on.
std::vector<std::uint64_t> prefix_marks(std::span<const engine::Token> tokens);

/// Tokens that two lists with these marks share at least; a multiple of kMarkTokens.
std::uint32_t common_marked_tokens(std::span<const std::uint64_t> a,
                                   std::span<const std::uint64_t> b);

/// Names of the files of one identity: "<hash of the identity>-<hash of the tokens>.prefix1". The
/// identity is in the name so that a file of another model or build is never even opened.
class PrefixNames {
 public:
  /// What all names of files of this format end with; the number is the format's version.
  static constexpr std::string_view kSuffix = ".prefix1";

  explicit PrefixNames(std::string_view identity);

  std::string name(std::span<const engine::Token> tokens) const;

  /// Whether a file of that name is of this identity and of this version of the format.
  bool ours(std::string_view name) const;

 private:
  std::string start_;  // "<hash of the identity>-"
};

/// Whether a file of that name is a prefix of any identity and version: it counts in the budget.
bool is_prefix_name(std::string_view name);

/// Tells one model file from another: size, time of change, and a hash of its first and last
/// mebibyte and of 64 samples between them. A whole hash would read tens of gigabytes at each
/// start; what this misses is a file changed in place, of the same size, with its old time put
/// back, in none of the samples.
/// Errors: kNotFound where the file cannot be read.
Result<std::string> model_fingerprint(const std::string& path);

}  // namespace pensieve::worker
