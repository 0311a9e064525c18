// The model file of the scripted engine: `key value` lines that say how big and how slow it is.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/engine.h"

namespace pensieve::engine {

/// A `*.script` file. `#` starts a comment; a key that is not there keeps its default.
struct ScriptedModel {
  std::uint32_t context_tokens = 8192;
  std::chrono::microseconds prefill_per_token{0};  // prefill_us_per_token
  std::chrono::microseconds token_time{0};         // token_us: one step that only decodes.
  std::chrono::milliseconds load_time{0};          // load_ms
  std::chrono::milliseconds prepare_time{0};       // prepare_ms: as slow schemas would take.
  Bytes weights;                                   // weights_mib: really taken by load().
  Bytes kv_per_token;                              // kv_kib_per_token: for estimates only.
  std::uint32_t embedding_size = 0;  // embedding_size: it gives vectors of that, and no answers.
  std::optional<Bytes> plan_total;   // plan_mib: what plan() answers, whatever the rest says.
};

/// Errors: kNotFound; kInvalidArgument that starts with `path:line:`.
Result<ScriptedModel> read_scripted_model(const std::string& path);

/// What a load of it would take: what the model says, whatever is so.
Plan plan_scripted(const ScriptedModel& model, const LoadOptions& options);

}  // namespace pensieve::engine
