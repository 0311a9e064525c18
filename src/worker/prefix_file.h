// One saved state as a file: what it says of itself, and how it is known to be whole.
//
//   0       8         12         16       20         24       32     40      48
//   | magic | version | identity | tokens | reserved | state  | hash | hash  | identity, tokens,
//   |       |         | bytes    |        | (0)      | bytes  | of   | of    | state ...
//   |       |         |          |        |          |        | state| head  |
//
// All numbers are little endian. The hash of the head covers the first 40 bytes, the identity and
// the tokens; the hash of the state covers the state. So every byte of a file is covered by the
// magic, the version or a hash. XXH3: 64 bits against accidents, at the speed of memory; against
// malice stand the permissions of folder and file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::worker {

inline constexpr std::size_t kPrefixHeadBytes = 48;
inline constexpr std::uint32_t kPrefixIdentityBytesMax = 4096;
/// The largest window that the settings allow.
inline constexpr std::uint32_t kPrefixTokensMax = 1U << 24;
/// What is written or read between two questions whether to go on.
inline constexpr std::size_t kPrefixChunkBytes = std::size_t{1} << 20;

struct PrefixHead {
  std::vector<engine::Token> tokens;
  Bytes state_bytes;
  std::uint64_t state_hash = 0;
};

/// Size of the whole file.
Bytes prefix_file_bytes(std::string_view identity, std::size_t tokens, Bytes state_bytes);

/// Asked between chunks; false ends the transfer with kDeadlineExceeded.
using GoOn = std::function<bool()>;

/// Writes a whole file from the descriptor's start on.
/// Errors: kUnavailable for what the system says; kDeadlineExceeded.
Result<void> write_prefix_file(int fd, std::string_view identity,
                               std::span<const engine::Token> tokens, std::string_view state,
                               const GoOn& go_on);

/// Reads all but the state, and leaves the descriptor where the state begins. `file_bytes` is what
/// the system says of the file's size; nothing is allocated that the file is too short for.
/// Errors: kInvalidArgument where the file is not whole or not of `identity`; kUnavailable where it
/// cannot be read; kDeadlineExceeded.
Result<PrefixHead> read_prefix_head(int fd, Bytes file_bytes, std::string_view identity,
                                    const GoOn& go_on);

/// Reads the state into `out`. Errors: as above; `out` is empty then.
Result<void> read_prefix_state(int fd, const PrefixHead& head, std::string& out, const GoOn& go_on);

}  // namespace pensieve::worker
