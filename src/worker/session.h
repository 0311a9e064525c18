// The worker's whole life: one engine, one socket, frames in and out until the gateway is gone.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/protection.h"
#include "engine/engine.h"
#include "memory/level.h"
#include "memory/memory_source.h"

namespace pensieve::worker {

struct SessionOptions {
  std::string engine_name;
  std::string version;
  memory::Floors floors;
  Protections protections = {};  // How this process has confined itself.
  Duration heartbeat_every = std::chrono::seconds(1);
  std::string prefix_directory = {};  // For prefixes on disk; empty: none are stored.
};

/// Serves the gateway at `socket` until it asks for a stop or is gone. Returns the exit code.
///
/// Three threads: this one reads frames, counts tokens (so that this never waits for a step) and
/// sends heartbeats; one tokenises prompts and compiles their schemas (preparer.h); one runs the
/// batch loop.
/// A heartbeat means progress: it is left out while the engine has work and shows none.
///
/// Ownership: borrows everything. Errors: an engine that fails, and an allocation that fails, end
/// the process at once with kExitEngineFailure and kExitOutOfMemory (worker_end.h): nothing that
/// an engine holds can be trusted after that, and the gateway starts a fresh worker.
int serve_session(int socket, const engine::EngineFactory& make_engine,
                  memory::MemorySource& memory_source, const Clock& clock,
                  const SessionOptions& options);

}  // namespace pensieve::worker
