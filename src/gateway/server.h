// The whole server in one object: listener, connections, memory sampling, drain, end.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "gateway/connection.h"
#include "gateway/service.h"
#include "memory/governor.h"
#include "memory/memory_source.h"
#include "memory/monitor.h"
#include "memory/signal_source.h"
#include "model/pool.h"

namespace pensieve::gateway {

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 7777;  // 0: any free one.
  /// Twice the thousand slow streams that a server may have to bear. Fewer where RLIMIT_NOFILE says
  /// so; see connections_that_fit().
  std::uint32_t connections_max = 2048;
  Duration drain_max = std::chrono::seconds(5);
  ConnectionLimits connection;
  Service::Options service;
  std::string batches_directory;  // For message batches; empty: there are none.
  std::string key_use_path;       // What keys have used of the day; empty: forgotten at the end.
  memory::Monitor::Options monitor;
  std::shared_ptr<memory::SignalSource> signals;  // Beside the available figure; empty: none.
  memory::Governor::Options governor;
  model::Pool::Options pool;
};

struct StartFailure {
  enum class Kind : std::uint8_t { kPortInUse, kAddress, kModel, kMemory } kind;
  std::string message;
};

struct Started {
  std::uint16_t port = 0;
  model::Pool::Status model;
  std::optional<model::LoadFailure> not_loaded;  // Only where that may pass.
  memory::Monitor::Status memory;
};

/// Serves until SIGINT, SIGTERM or POST /v1/pensieve/stop, then drains for at most drain_max. A
/// second signal ends the process at once, with exit code 130.
///
/// The port is bound first and /health answers while the model is loading. `on_started` is called
/// once the model is loaded, or cannot be loaded now for a reason that may pass; a model that can
/// never be loaded ends run() instead.
///
/// One io thread: run()'s caller. Blocks. Borrows source and clock.
std::expected<void, StartFailure> run_server(memory::MemorySource& source, const Clock& clock,
                                             const ServerOptions& options,
                                             const std::function<void(const Started&)>& on_started);

}  // namespace pensieve::gateway
