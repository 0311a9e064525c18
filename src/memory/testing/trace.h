// Recorded incidents (tests/traces/*.csv, format in its README.md), and the production policy
// replayed over them: monitor with signals and forecast, admission, governor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/testing/fake_clock.h"
#include "memory/governor.h"
#include "memory/level.h"
#include "memory/monitor.h"
#include "memory/testing/fake_memory_source.h"
#include "memory/testing/fake_signal_source.h"

namespace pensieve::memory {

struct TraceRow {
  Duration at{};  // Since the first row.
  Result<Reading> reading;
  RawSignals signals;
  Bytes held;
};

struct Trace {
  Floors floors;
  std::vector<TraceRow> rows;
};

/// Aborts with the line where the file is not as documented: a test must not pass on half a trace.
Trace read_trace(const std::string& path);

/// What the policy made of a trace. Each text is a list of changes: "0 Safe, 12.5 Warning", where
/// the figure is the second at which it came about.
struct Replay {
  std::string levels;
  std::string refusals;     // "13-20.25": of a request in each row, those refused. Empty: none.
  std::string alerts;       // The same for the forecast's alert.
  std::string worsened;     // The same for signals that counted.
  std::string rungs;        // The governor's.
  double critical_at = -1;  // First second of Critical or worse; -1: never.
  double alert_at = -1;     // First second of an alert.
  std::string wedged;  // Where the governor's orders broke the anti-wedge rule; empty: nowhere.
};

Replay replay(const Trace& trace);

}  // namespace pensieve::memory
