// `pensieve plan`: what a model would take, and whether that fits. Plain values; main.cc asks the
// worker and the machine.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>

#include "cli/exit_code.h"

namespace pensieve::cli {

/// All figures in bytes; empty where not known.
struct MemoryNow {
  std::string source;  // "this machine", or the server that was asked.
  std::optional<std::uint64_t> available;
  std::optional<std::uint64_t> total;
  std::uint64_t outstanding = 0;  // Promised and not yet taken.
  std::uint64_t floor = 0;        // Kept free.
  /// What a server has loaded and could unload, because nobody uses it.
  std::string idle_model = {};
  std::uint64_t idle_bytes = 0;

  /// What could be promised now; the second where the idle model went first.
  std::optional<std::uint64_t> room() const;
  std::optional<std::uint64_t> room_after_unload() const;
  std::optional<std::uint64_t> room_ever() const;
};

/// What was measured of the model's last worker.
struct LastRun {
  std::uint32_t runs = 0;  // That are remembered; the rest is of the last one.
  std::uint64_t planned_bytes = 0;
  std::uint64_t peak_bytes = 0;
  std::uint64_t resident_peak_bytes = 0;
  bool was_full = false;
};

struct PlanReport {
  std::string model;
  std::string engine;
  std::string path;
  std::uint32_t context_tokens = 0;
  std::uint32_t context_train_tokens = 0;
  std::uint32_t parallel = 0;
  std::uint64_t weights_mapped_bytes = 0;
  std::uint64_t weights_copied_bytes = 0;
  std::uint64_t kv_bytes = 0;
  std::uint64_t compute_bytes = 0;
  std::uint64_t process_bytes = 0;
  std::uint64_t image_bytes = 0;    // The projector and pictures; 0: the model cannot see.
  std::uint64_t grammar_bytes = 0;  // Schemas of tools and answers; 0: nothing keeps them.
  std::uint64_t raised_bytes = 0;   // In process_bytes, by what earlier runs took.
  std::uint64_t lowered_bytes = 0;  // Taken off, because earlier full runs never took it.
  std::optional<std::uint32_t> largest_now;
  std::optional<std::uint32_t> largest_ever;
  std::optional<LastRun> last_run;
  MemoryNow memory;

  std::uint64_t total_bytes() const;
};

enum class Fit : std::uint8_t { kNow, kAfterUnload, kNotNow, kNever, kUnknown };

Fit fit_of(const PlanReport& report);

/// kOk where it fits now or after an unload that a server does by itself; kRefusedForMemory where
/// it does not fit now or nobody knows; kDoesNotFit where it never will.
ExitCode exit_code_of(Fit fit);

std::string plan_text(const PlanReport& report);
std::string plan_json(const PlanReport& report);

struct PlanFailure {
  ExitCode code = ExitCode::kFailure;
  std::string message;
};

}  // namespace pensieve::cli
