// The folder of stored prefixes: names, sizes, ages; written whole or not at all; shared by every
// server of one user. Every call may block on the disk, so only the store's own threads call.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/engine.h"
#include "worker/prefix_file.h"
#include "worker/prefix_key.h"

namespace pensieve::worker {

/// Makes the folder for its owner alone (0700), with the folders above it.
/// Errors: kUnavailable where it cannot be made, is not ours, or others may write to it: a state is
/// read by the engine as it is, so nobody else may put one there.
Result<void> make_prefix_folder(const std::string& path);

/// Several servers may use one folder at once: files appear whole by a rename, are never changed
/// afterwards, and may be removed by anybody at any time; who reads one has it open. What a dead
/// server left half written is known by its lock, which the kernel took back, and swept.
///
/// Thread-safety: any thread.
/// Errors: kNotFound: the file is gone. kInvalidArgument: it was damaged and has been removed.
/// kUnavailable: the disk, the folder or its permissions, as text; may pass.
class PrefixFolder {
 public:
  /// Most files that are looked at. Choice: at 23 kB per token, 4,096 files of the least length
  /// are 24 GB; what lies beyond is neither found nor counted.
  static constexpr std::size_t kFilesMax = 4096;

  struct File {
    std::string name;
    Bytes bytes;
    std::int64_t used_at_ns = 0;  // Since the epoch; by the system that holds the files.
    bool ours = false;            // Of our identity and format.
    bool temporary = false;       // Being written by some server.
  };

  struct Contents {
    std::vector<File> files;  // Least recently used first.
    Bytes bytes;              // Of all of them.
    bool complete = true;     // False where there are more than kFilesMax.
  };

  PrefixFolder(std::string path, std::string identity);

  const std::string& path() const { return path_; }
  const std::string& identity() const { return identity_; }
  const PrefixNames& names() const { return names_; }

  /// All prefixes in the folder, of every identity, and sweeps what dead servers left.
  Result<Contents> list() const;

  /// Removes files, least recently used first, until `incoming` fits with all others into `most`;
  /// exactly fitting is in. Returns what is left. Errors also: kOutOfMemory where it cannot fit.
  Result<Contents> make_room(Bytes most, Bytes incoming) const;

  /// Writes the file under its name. Errors also: kDeadlineExceeded; nothing is left behind.
  Result<void> write(std::span<const engine::Token> tokens, std::string_view state,
                     const GoOn& go_on) const;

  /// What a file says of itself; its state may still be damaged.
  Result<PrefixHead> read_head(const std::string& name, const GoOn& go_on) const;

  /// Reads all and marks the file as used now. Errors also: kOutOfMemory, before anything is read,
  /// where the file is larger than `most`: what the caller has memory for.
  Result<PrefixHead> read(const std::string& name, Bytes most, std::string& state,
                          const GoOn& go_on) const;

  /// Removing what is gone already is no error.
  Result<void> remove(const std::string& name) const;

 private:
  template <class Rest>
  Result<PrefixHead> read_with(const std::string& name, Bytes most, const GoOn& go_on,
                               const Rest& rest) const;

  std::string path_;
  std::string identity_;
  PrefixNames names_;
};

}  // namespace pensieve::worker
