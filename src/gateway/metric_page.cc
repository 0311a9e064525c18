#include "gateway/metric_page.h"

#include <utility>

#include <prometheus/text_serializer.h>

#include "base/error.h"

namespace pensieve::gateway {

MetricPage& MetricPage::gauge(std::string name, std::string unit, std::string help,
                              std::vector<std::string> labels) {
  return begin(prometheus::MetricType::Gauge,
               {std::move(name), "gauge", std::move(unit), std::move(labels), std::move(help)});
}

MetricPage& MetricPage::counter(std::string name, std::string unit, std::string help,
                                std::vector<std::string> labels) {
  return begin(prometheus::MetricType::Counter,
               {std::move(name), "counter", std::move(unit), std::move(labels), std::move(help)});
}

MetricPage& MetricPage::begin(prometheus::MetricType type, MetricDescription description) {
  families_.push_back(
      {.name = description.name, .help = description.help, .type = type, .metric = {}});
  descriptions_.push_back(std::move(description));
  return *this;
}

MetricPage& MetricPage::sample(double value, const std::vector<std::string>& label_values) {
  PENSIEVE_CHECK(!families_.empty());
  const std::vector<std::string>& labels = descriptions_.back().labels;
  PENSIEVE_CHECK(label_values.size() == labels.size());
  prometheus::ClientMetric metric;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    metric.label.push_back({labels[i], label_values[i]});
  }
  if (families_.back().type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  families_.back().metric.push_back(std::move(metric));
  return *this;
}

std::string MetricPage::text() const {
  return prometheus::TextSerializer().Serialize(families_);
}

}  // namespace pensieve::gateway
