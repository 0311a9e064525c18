#include "memory/testing/trace.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "memory/admission.h"
#include "memory/kernel_text.h"

namespace pensieve::memory {
namespace {

constexpr std::string_view kHeader =
    "time_ms,available_kib,total_kib,limited_by,psi_scope,some_avg10,some_total_us,full_avg10,"
    "full_total_us,swap_scope,swap_in_pages,low,high,max,oom,oom_kill,held_kib";
constexpr std::size_t kColumns = 17;
constexpr std::string_view kUnreadable = "!";

/// Cuts a line into cells, also empty ones.
std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const std::size_t comma = line.find(',');
    cells.push_back(line.substr(0, comma));
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(path) {
    require(file_.is_open(), "cannot be opened");
  }

  Trace read() {
    Trace trace;
    bool header = false;
    while (std::getline(file_, line_)) {
      ++number_;
      if (line_.starts_with("# floors_mib: ")) {
        trace.floors = floors_of(line_.substr(14));
      } else if (line_.starts_with('#')) {
        continue;
      } else if (!header) {
        require(line_ == kHeader, "is not the header");
        header = true;
      } else {
        trace.rows.push_back(row_of(line_));
        const std::size_t size = trace.rows.size();
        require(size < 2 || trace.rows[size - 2].at < trace.rows[size - 1].at, "goes back in time");
      }
    }
    require(trace.rows.size() > 1, "has no rows");
    return trace;
  }

 private:
  void require(bool condition, std::string_view what) const {
    if (condition) return;
    fmt::print(stderr, "{}:{} {}: {}\n", path_, number_, what, line_);
    std::abort();
  }

  std::uint64_t count(std::string_view cell) const {
    const std::optional<std::uint64_t> value = parse_count(cell);
    require(value.has_value(), "has a cell that is no count");
    return *value;
  }

  Floors floors_of(std::string_view words) const {
    Floors floors;
    for (Bytes* floor : {&floors.caution, &floors.warning, &floors.critical, &floors.emergency}) {
      *floor = Bytes(count(next_word(words)) << 20);
    }
    require(floors.ordered(), "has floors in the wrong order");
    return floors;
  }

  Scope scope(std::string_view cell) const {
    require(cell == "own" || cell == "machine", "has a scope that is neither own nor machine");
    return cell == "own" ? Scope::kOwn : Scope::kMachine;
  }
  static std::string where(Scope scope) {
    return scope == Scope::kOwn ? "own group" : std::string(kMachineMeter);
  }
  static std::unexpected<Error> unreadable() { return fail(Code::kUnavailable, "lost"); }

  TraceRow row_of(std::string_view line) const {
    const std::vector<std::string_view> cells = cells_of(line);
    require(cells.size() == kColumns, "has not 17 cells");
    TraceRow row{std::chrono::milliseconds(count(cells[0])), unreadable(), {}, {}};
    if (!cells[1].empty()) {
      row.reading = Reading{Bytes(count(cells[1]) << 10), Bytes(count(cells[2]) << 10),
                            std::string(cells[3])};
    }
    row.signals.pressure = pressure_of(cells);
    row.signals.swap_in = swap_in_of(cells);
    row.signals.events = events_of(cells);
    if (!cells[16].empty()) row.held = Bytes(count(cells[16]) << 10);
    return row;
  }

  Result<std::optional<RawPressure>> pressure_of(const std::vector<std::string_view>& cells) const {
    if (cells[4].empty()) return std::nullopt;
    if (cells[5] == kUnreadable) return unreadable();
    RawPressure raw;
    const auto stall = [&](std::size_t column) {
      const double average = std::strtod(std::string(cells[column]).c_str(), nullptr);
      require(average >= 0 && average <= 100, "has an average that is no share");
      return Stall{average, average, average, std::chrono::microseconds(count(cells[column + 1]))};
    };
    raw.pressure = {stall(5), stall(7)};
    raw.scope = scope(cells[4]);
    raw.where = where(raw.scope);
    return raw;
  }

  Result<std::optional<RawSwapIn>> swap_in_of(const std::vector<std::string_view>& cells) const {
    if (cells[9].empty()) return std::nullopt;
    if (cells[10] == kUnreadable) return unreadable();
    const Scope whose = scope(cells[9]);
    return RawSwapIn{count(cells[10]), whose, where(whose)};
  }

  Result<std::optional<RawEvents>> events_of(const std::vector<std::string_view>& cells) const {
    if (cells[11].empty()) return std::nullopt;
    if (cells[11] == kUnreadable) return unreadable();
    RawEvents events;
    events.low = count(cells[11]);
    events.high = count(cells[12]);
    events.max = count(cells[13]);
    events.oom = count(cells[14]);
    events.oom_kill = count(cells[15]);
    events.where = "own group";
    return events;
  }

  std::string path_;
  std::ifstream file_;
  std::string line_;
  std::size_t number_ = 0;
};

class TraceSource final : public MemorySource {
 public:
  void set(const Result<Reading>& reading) { now_ = reading; }
  Result<Reading> read() override { return now_; }

 private:
  Result<Reading> now_ = fail(Code::kUnavailable, "before the trace");
};

class TraceSignals final : public SignalSource {
 public:
  void set(const RawSignals& signals) { now_ = signals; }
  RawSignals read() override { return now_; }

 private:
  RawSignals now_;
};

/// "0 Safe, 3.5 Warning": grows when what it is told changes.
class Changes {
 public:
  void note(double second, std::string_view what) {
    if (what == last_) return;
    last_ = what;
    text_ += fmt::format("{}{} {}", text_.empty() ? "" : ", ", second, what);
  }
  const std::string& text() const { return text_; }

 private:
  std::string last_;
  std::string text_;
};

/// "3-7.25, 9": grows by the rows in which something is so.
class Spans {
 public:
  void note(double second, bool is_so) {
    if (is_so) {
      if (!begin_) begin_ = second;
      end_ = second;
    } else if (begin_) {
      close();
    }
  }
  std::string text() {
    if (begin_) close();
    return text_;
  }

 private:
  void close() {
    text_ += fmt::format("{}{}", text_.empty() ? "" : ", ", *begin_);
    if (end_ != *begin_) text_ += fmt::format("-{}", end_);
    begin_.reset();
  }

  std::optional<double> begin_;
  double end_ = 0;
  std::string text_;
};

/// One request runs for as long as anything is held, and never ends: the worst case.
Situation situation_of(const Monitor::Status& status, Bytes held) {
  Situation situation;
  situation.level = status.level;
  situation.recovering = status.recovering;
  situation.available = status.available;
  situation.held = held;
  situation.engines = held == Bytes() ? Engines::kNone : Engines::kBusy;
  situation.requests_running = held == Bytes() ? 0 : 1;
  return situation;
}

}  // namespace

Trace read_trace(const std::string& path) {
  return Reader(path).read();
}

Replay replay(const Trace& trace) {
  FakeClock clock;
  TraceSource source;
  TraceSignals signals;
  Monitor monitor(source, &signals, clock, {.floors = trace.floors});
  Governor governor({.floors = trace.floors});
  Replay result;
  Changes levels;
  Changes rungs;
  Spans refusals;
  Spans alerts;
  Spans worsened;
  Duration now{};
  for (const TraceRow& row : trace.rows) {
    clock.advance(row.at - now);
    now = row.at;
    source.set(row.reading);
    signals.set(row.signals);
    monitor.sample();
    const Monitor::Status status = monitor.status();
    const Situation situation = situation_of(status, row.held);
    const Orders orders = governor.step(situation, clock.now());
    const double second =
        std::chrono::duration<double>(std::chrono::round<std::chrono::milliseconds>(now)).count();
    levels.note(second, name(status.level));
    rungs.note(second, name(orders.rung()));
    refusals.note(second, std::holds_alternative<Refuse>(decide(status)));
    alerts.note(second, monitor.forecast().alert);
    worsened.note(second, !status.worsened_by.empty());
    if (status.level >= Level::kCritical && result.critical_at < 0) result.critical_at = second;
    if (monitor.forecast().alert && result.alert_at < 0) result.alert_at = second;
    if (is_wedged(situation, orders, trace.floors)) result.wedged += fmt::format("{} ", second);
  }
  result.levels = levels.text();
  result.rungs = rungs.text();
  result.refusals = refusals.text();
  result.alerts = alerts.text();
  result.worsened = worsened.text();
  return result;
}

}  // namespace pensieve::memory
