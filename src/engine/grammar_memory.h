// What the grammars of a model may take of its worker's memory. Pure.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace pensieve::engine {

/// The bounds, for one vocabulary: masks of tokens are what grammars consist of. All are choices,
/// and each is really kept (token_grammar.h), but for `tokens`, which was measured: 85 bytes a
/// token where it stays and 40 while it is made, with 49,152 and 262,144 tokens.
struct GrammarMemory {
  Bytes tokens;     // The vocabulary as xgrammar has it, from the first schema on.
  Bytes kept;       // Compiled grammars, those in use included.
  Bytes compiling;  // Each compilation for itself: most tools and answers need less.
  Bytes following;  // Each answer that is followed for itself: some thousand tokens of text.
  Bytes shared;     // What all of these borrow beyond it: a nasty schema, a long bounded text.

  static constexpr int kCompilingMax =
      2;  // At once: one that somebody waits for, one that goes on.

  static constexpr GrammarMemory of(std::uint64_t vocabulary) {
    return {.tokens = Bytes(160 * vocabulary),
            .kept = Bytes((32ULL << 20) + 128 * vocabulary),
            .compiling = Bytes((4ULL << 20) + 64 * vocabulary),
            .following = Bytes(4ULL << 20),
            .shared = Bytes((40ULL << 20) + 192 * vocabulary)};
  }

  /// What a worker is to be promised for them. malloc keeps holes between the blocks of grammars
  /// that come and go: a seventh was measured of what was counted.
  constexpr Bytes total(std::uint32_t sequences) const {
    const std::uint64_t counted = kept.count() + kCompilingMax * compiling.count() +
                                  sequences * following.count() + shared.count();
    return Bytes(tokens.count() + counted + counted / 4);
  }
};

}  // namespace pensieve::engine
