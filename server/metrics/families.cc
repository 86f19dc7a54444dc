#include "server/metrics/families.h"

#include <limits>

namespace nsa {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

ClientMetric Labelled(const MetricLabels& labels) {
  ClientMetric metric;
  for (const auto& [name, value] : labels) metric.label.push_back({name, value});
  return metric;
}

MetricFamily Family(std::string name, std::string help, MetricType type) {
  MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  return family;
}

}  // namespace

MetricFamily GaugeFamily(std::string name, std::string help,
                         const std::vector<MetricValue>& values) {
  MetricFamily family = Family(std::move(name), std::move(help), MetricType::Gauge);
  for (const MetricValue& value : values) {
    family.metric.push_back(Labelled(value.labels));
    family.metric.back().gauge.value = value.value;
  }
  return family;
}

MetricFamily CounterFamily(std::string name, std::string help,
                           const std::vector<MetricValue>& values) {
  MetricFamily family = Family(std::move(name), std::move(help), MetricType::Counter);
  for (const MetricValue& value : values) {
    family.metric.push_back(Labelled(value.labels));
    family.metric.back().counter.value = value.value;
  }
  return family;
}

MetricFamily HistogramFamily(std::string name, std::string help, const MetricLabels& labels,
                             const Histogram& histogram) {
  MetricFamily family = Family(std::move(name), std::move(help), MetricType::Histogram);
  ClientMetric metric = Labelled(labels);
  uint64_t cumulative = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    cumulative += histogram.counts[i];
    const double bound =
        i < histogram.bounds.size() ? histogram.bounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({.cumulative_count = cumulative, .upper_bound = bound});
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = histogram.sum;
  family.metric.push_back(std::move(metric));
  return family;
}

}  // namespace nsa
