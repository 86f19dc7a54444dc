#pragma once
// EngineStats as Prometheus families, under vLLM's names where vLLM has them.

#include <functional>
#include <string>
#include <vector>

#include "engine/stats.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace nsa {

// Reads the engine's statistics at each scrape, so that gauges are never stale.
class EngineMetrics final : public prometheus::Collectable {
 public:
  struct Options {
    std::string model_name;
    int64_t page_tokens = 0;
    int64_t num_pages = 0;
    std::function<EngineStats()> stats;  // thread-safe
  };
  explicit EngineMetrics(Options options) : options_(std::move(options)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  Options options_;
};

}  // namespace nsa
