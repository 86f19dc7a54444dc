#pragma once
// Plain numbers to Prometheus metric families.

#include <string>
#include <utility>
#include <vector>

#include "engine/stats.h"
#include "prometheus/metric_family.h"

namespace nsa {

// Names and values come from the server's configuration and source, never from a client.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

struct MetricValue {
  MetricLabels labels;
  double value = 0;
};

prometheus::MetricFamily GaugeFamily(std::string name, std::string help,
                                     const std::vector<MetricValue>& values);
prometheus::MetricFamily CounterFamily(std::string name, std::string help,
                                       const std::vector<MetricValue>& values);
// Buckets are cumulative; the last one is +Inf.
prometheus::MetricFamily HistogramFamily(std::string name, std::string help,
                                         const MetricLabels& labels, const Histogram& histogram);

}  // namespace nsa
