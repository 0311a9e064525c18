// An engine without a model: it speaks a script that the request brings (see script.h), takes real
// memory, and hangs, crashes or fails when told to. Everything but inference is tested by it.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"
#include "engine/engine.h"

namespace pensieve::engine {

/// Stands in for time that passes inside the engine; a test's sleep returns at once.
using Sleep = std::function<void(Duration)>;

/// Blocks the calling thread for that long.
void real_sleep(Duration duration);

/// `LoadOptions::model_path` names a file as in scripted_model.h. A request can make this engine
/// end its process and create files: it is for tests, never for a server that others can reach.
/// One piece of text (split_pieces()) is one token; a turn costs two more.
std::unique_ptr<Engine> make_scripted_engine(ProgressTick tick, Sleep sleep = real_sleep);

}  // namespace pensieve::engine
