// GET /health, /metrics, /v1/pensieve/ps, .../memory/history and the front page: what the server
// says of itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "gateway/batches.h"
#include "gateway/buffer_account.h"
#include "gateway/connection_table.h"
#include "gateway/exchange.h"
#include "gateway/traffic.h"
#include "memory/governor.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "model/pool.h"

namespace pensieve::gateway {

/// Renders status structs at the moment of the question; owns no figures and changes none, except
/// that /health and the front page take a reading where the last one is too old.
///
/// Ownership: borrows all; all must outlive it. Thread-safety: the io thread only.
class StatusPages {
 public:
  /// What only the routes know.
  struct Serving {
    bool draining = false;
    std::uint32_t requests_active = 0;
    std::string_view query;  // Of the request: the part of its URL after the "?".
    std::string_view request_id;
    std::optional<Batches::Status> batches;
    std::optional<ConnectionTable::Status> connections;
  };

  StatusPages(const model::Pool& pool, memory::Monitor& monitor, const memory::Ledger& ledger,
              const BufferAccount& buffers, const memory::Governor& governor, const Clock& clock,
              const Traffic& traffic)
      : pool_(pool),
        monitor_(monitor),
        ledger_(ledger),
        buffers_(buffers),
        governor_(governor),
        clock_(clock),
        traffic_(traffic) {}

  static bool has(std::string_view path);

  /// Empty where has(path) is false.
  std::optional<HttpResponse> page(std::string_view path, const Serving& serving);

 private:
  HttpResponse health(const Serving& serving);
  HttpResponse metrics(const Serving& serving);
  HttpResponse ps(const Serving& serving);
  HttpResponse history(const Serving& serving);
  HttpResponse front_page();

  const model::Pool& pool_;
  memory::Monitor& monitor_;
  const memory::Ledger& ledger_;
  const BufferAccount& buffers_;
  const memory::Governor& governor_;
  const Clock& clock_;
  const Traffic& traffic_;
};

}  // namespace pensieve::gateway
