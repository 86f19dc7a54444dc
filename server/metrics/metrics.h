#pragma once
// Metrics: everything that /metrics shows. Thread-safe.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/metrics/engine_metrics.h"

namespace nsa {

class Metrics {
 public:
  struct Options {
    EngineMetrics::Options engine;
    std::string version;                      // of the server
    std::string architecture;                 // of the model
    std::string attention;                    // "nsa" or "full"
    std::vector<std::string> http_routes;     // these exist at 0
    std::vector<std::string> grpc_methods;    // these too
    std::vector<std::string> startup_phases;  // these too
  };
  explicit Metrics(Options options);
  ~Metrics();

  // `route` is one of http_routes, or empty for a request that no route took.
  void CountHttpRequest(std::string_view route, int status);
  // `code` is a gRPC status code.
  void CountGrpcCall(std::string_view method, int code);
  void SetStartupPhase(std::string_view phase, double seconds);

  // All series in the Prometheus text format, version 0.0.4.
  std::string Text() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsa
