// The text that Prometheus scrapes, put together family by family. What stands in it is
// metrics.h's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <prometheus/metric_family.h>

namespace pensieve::gateway {

/// As docs/metrics.md lists it, one row per metric.
struct MetricDescription {
  std::string name;
  std::string type;                 // "gauge" or "counter".
  std::string unit;                 // "bytes", "seconds", "tokens", ...; what is counted.
  std::vector<std::string> labels;  // Names.
  std::string help;
};

/// One scrape's worth of families, in the order in which they were begun.
///
/// A figure that is not known has no sample: never a zero in its place. Its family stays, so that
/// a reader sees that the metric exists.
///
/// Thread-safety: none; lives inside one request.
class MetricPage {
 public:
  /// Names are `pensieve_<noun>_<unit>`, those of counters end in `_total`; metrics_test.cc looks
  /// at that, so a scrape never has to.
  MetricPage& gauge(std::string name, std::string unit, std::string help,
                    std::vector<std::string> labels = {});
  MetricPage& counter(std::string name, std::string unit, std::string help,
                      std::vector<std::string> labels = {});

  /// Adds a sample to the family that was begun last, with a value for each of its labels.
  /// REQUIRES: as many label values as labels.
  MetricPage& sample(double value, const std::vector<std::string>& label_values = {});

  /// The text exposition format, version 0.0.4.
  std::string text() const;
  const std::vector<MetricDescription>& descriptions() const { return descriptions_; }

 private:
  MetricPage& begin(prometheus::MetricType type, MetricDescription description);

  std::vector<prometheus::MetricFamily> families_;
  std::vector<MetricDescription> descriptions_;
};

inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace pensieve::gateway
