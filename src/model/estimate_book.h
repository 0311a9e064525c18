// What models really took, remembered across restarts, so that the next estimate is a better one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "engine/engine.h"

namespace pensieve::model {

/// One worker from its load to its end. "Planned" is the anonymous part of the engine's own
/// estimate, without correction: mapped weights are exact and need none.
struct Run {
  Bytes planned;        // At the moment of the peak.
  Bytes peak;           // Most anonymous memory that was measured.
  Bytes resident_peak;  // Most of all, mapped weights included.
  Bytes above;          // Most by which a measurement passed the plan.
  /// At least 90 % of the KV cells were in use at some time: the peak says something about less.
  bool was_full = false;
};

/// What is remembered of a model.
struct Experience {
  std::uint32_t runs = 0;
  Run last;
  Bytes above;                  // Highest, halved by each run that stays below it.
  std::uint32_t full_runs = 0;  // In a row, none of them above the plan.
  Bytes unused;                 // Least that was left in any of those.
  std::uint64_t order = 0;      // Larger is later.
};

/// Adds a run to what is known.
Experience learned(const std::optional<Experience>& before, const Run& run);

/// The estimate after what is known. Raised by what earlier runs took above it and a margin, at
/// most by as much as it says itself: what takes more leaks, and no reservation is large enough for
/// a leak. Lowered only after kFullRunsLeast full runs, by what all of them left unused less a
/// margin, and by a quarter at most of what the process and its compute buffers were given; weights
/// and KV are exact and stay, and so does what grammars may take: nobody says that those runs had
/// any.
engine::MemoryEstimate corrected(engine::MemoryEstimate estimate, const Experience& experience);

/// Above the highest peak there is always this much.
constexpr Bytes correction_margin(Bytes peak) {
  return Bytes((16ULL << 20) + peak.count() / 16);
}

/// A small JSON file, read at start and replaced as a whole at each change.
///
/// A file that cannot be read or makes no sense is ignored with one log line, and so is one that
/// cannot be written: estimates are upper bounds without it. Not synced to disk: after a power
/// loss it may be the old one, or be ignored.
///
/// Thread-safety: one thread.
class EstimateBook {
 public:
  static constexpr std::size_t kModelsMax = 64;  // The one that was not used for longest goes.
  static constexpr std::size_t kFileBytesMax = 256U << 10;
  static constexpr std::size_t kKeyBytesMax = 1024;

  /// Empty: nothing is kept. The folder is created where it is missing.
  explicit EstimateBook(std::string path);

  std::optional<Experience> find(const std::string& key) const;
  void remember(const std::string& key, Experience experience);

 private:
  void read();
  void write();

  const std::string path_;
  std::map<std::string, Experience> models_;
  bool unwritable_ = false;  // Said once.
};

/// The same for every load that takes the same: the files (name, size, time of change; no
/// `projector_path`: the model's alone), the engine and the options that the estimate's uncertain
/// parts depend on. Empty where the file is not there.
std::string estimate_key(const std::string& path, std::string_view engine,
                         std::uint32_t sequences_max, std::uint32_t step_tokens_max,
                         const std::string& projector_path = "");

/// `${XDG_STATE_HOME:-~/.local/state}/pensieve/estimates.json`; empty where neither is set.
std::string default_estimates_path();

}  // namespace pensieve::model
