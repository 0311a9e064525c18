// What /metrics says: one function per status struct. Whoever adds a field to a status adds its
// metric to that function and its row to docs/metrics.md (metrics_test.cc compares both).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "gateway/batches.h"
#include "gateway/buffer_account.h"
#include "gateway/connection_table.h"
#include "gateway/metric_page.h"
#include "gateway/traffic.h"
#include "memory/governor.h"
#include "memory/ledger.h"
#include "memory/monitor.h"
#include "model/pool.h"

namespace pensieve::gateway {

void add_build(MetricPage& page);
void add_memory(MetricPage& page, const memory::Monitor::Status& status);
void add_forecast(MetricPage& page, const memory::Forecast& forecast);
void add_ledger(MetricPage& page, const memory::Ledger& ledger);
void add_buffers(MetricPage& page, const BufferAccount& buffers);
void add_pressure(MetricPage& page, const memory::Governor::Status& status);
/// Figures of a worker are there only while there is one that is ready.
void add_model(MetricPage& page, std::string_view model, const model::Pool::Status& status);
void add_prefixes(MetricPage& page, std::string_view model, const model::Pool::Status& status);
/// Without samples where there are none: no batches here, or nobody who counts connections.
void add_batches(MetricPage& page, const std::optional<Batches::Status>& status);
void add_connections(MetricPage& page, const std::optional<ConnectionTable::Status>& status);
void add_traffic(MetricPage& page, const Traffic& traffic, std::uint32_t requests_active);

}  // namespace pensieve::gateway
