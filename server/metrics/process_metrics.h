#pragma once
// The series of a process that Prometheus' client libraries agree on, from /proc at each scrape.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace nsa {

// What is read of /proc/PID/stat.
struct ProcessStat {
  double cpu_seconds = 0;    // of all threads, in user and kernel mode
  double start_seconds = 0;  // from the machine's boot to the start of the process
  int64_t virtual_bytes = 0, resident_bytes = 0;
};
// Nothing if `line` is not of that file (proc(5)).
std::optional<ProcessStat> ParseProcessStat(std::string_view line);

// Series of this process, without labels; none where /proc cannot be read. Thread-safe.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  ProcessMetrics();
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const double start_time_;  // seconds since the epoch; the clock may be set later, a start has one
};

}  // namespace nsa
