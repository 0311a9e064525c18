// What a load would take, asked of a worker that loads nothing: for `pensieve plan`.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "memory/level.h"
#include "model/catalogue.h"
#include "model/estimate_book.h"
#include "model/pool.h"

namespace pensieve::model {

struct PlanQuestion {
  ModelFile model;
  std::string worker_program;
  std::uint32_t context_tokens = 0;  // 0: the window that a server would wish for.
  std::uint32_t sequences_max = 4;
  std::uint32_t threads = 1;
  memory::Floors floors;
  std::string estimates_path;  // As for the pool.
  /// What could be promised to this model now, and on a machine with nothing else on it. Empty
  /// where that cannot be read.
  std::optional<Bytes> room_now;
  std::optional<Bytes> room_ever;
};

struct PlanAnswer {
  /// With a KV cell for each token of the window, corrected by the book: what a server reserves in
  /// the end, when its cache has grown as far as it can.
  engine::Plan plan;
  Bytes raised;   // By the book; is in plan.estimate.
  Bytes lowered;  // Likewise, the other way.
  std::optional<Experience> experience;
  /// Largest window that fits, in steps of kWindowStep; 0: not even one step. Empty where the room
  /// is not known.
  std::optional<std::uint32_t> largest_now;
  std::optional<std::uint32_t> largest_ever;

  static constexpr std::uint32_t kWindowStep = 256;
};

/// Starts a worker, asks it for a handful of plans and ends it. Blocks: as long as it takes to read
/// the model's header, a few times. Loads no weights.
/// Errors: as Pool::acquire() has them, never kNotNow.
std::expected<PlanAnswer, LoadFailure> plan_model(const PlanQuestion& question, const Clock& clock);

}  // namespace pensieve::model
