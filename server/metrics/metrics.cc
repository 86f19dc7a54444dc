#include "server/metrics/metrics.h"

#include <array>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/metrics/process_metrics.h"

namespace nsa {
namespace {

// "OK", "INVALID_ARGUMENT": gRPC's codes are Abseil's.
std::string CodeName(int code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

}  // namespace

class Metrics::Impl {
 public:
  explicit Impl(Options options)
      : labels_({{"model_name", options.engine.model_name}, {"engine", "0"}}),
        engine_(std::move(options.engine)),
        http_requests_(prometheus::BuildCounter()
                           .Name("nsa_http_requests_total")
                           .Help("HTTP responses by route and status code; 499: the client left.")
                           .Labels(labels_)
                           .Register(registry_)),
        grpc_calls_(prometheus::BuildCounter()
                        .Name("nsa_grpc_requests_total")
                        .Help("gRPC calls by method and status code.")
                        .Labels(labels_)
                        .Register(registry_)),
        startup_phases_(prometheus::BuildGauge()
                            .Name("nsa_startup_phase_seconds")
                            .Help("Duration of each phase of the start.")
                            .Labels(labels_)
                            .Register(registry_)) {
    for (const std::string& route : options.http_routes) HttpCounter(route, 200);
    for (const std::string& method : options.grpc_methods) GrpcCounter(method, 0);
    for (const std::string& phase : options.startup_phases) PhaseGauge(phase);
    prometheus::BuildGauge()
        .Name("nsa_build_info")
        .Help("What is running; always 1.")
        .Labels(labels_)
        .Register(registry_)
        .Add({{"version", options.version},
              {"architecture", options.architecture},
              {"attention", options.attention}})
        .Set(1);
  }

  prometheus::Counter& HttpCounter(std::string_view route, int status) {
    return http_requests_.Add(
        {{"route", route.empty() ? "none" : std::string(route)}, {"code", absl::StrCat(status)}});
  }
  prometheus::Counter& GrpcCounter(std::string_view method, int code) {
    return grpc_calls_.Add({{"method", std::string(method)}, {"code", CodeName(code)}});
  }
  prometheus::Gauge& PhaseGauge(std::string_view phase) {
    return startup_phases_.Add({{"phase", std::string(phase)}});
  }

  std::string Text() const {
    std::vector<prometheus::MetricFamily> families;
    for (const prometheus::Collectable* source : sources_) {
      std::vector<prometheus::MetricFamily> found = source->Collect();
      families.insert(families.end(), std::make_move_iterator(found.begin()),
                      std::make_move_iterator(found.end()));
    }
    return prometheus::TextSerializer().Serialize(families);
  }

 private:
  const prometheus::Labels labels_;  // as of the engine's series
  EngineMetrics engine_;
  ProcessMetrics process_;
  prometheus::Registry registry_;
  const std::array<const prometheus::Collectable*, 3> sources_ = {&engine_, &registry_, &process_};
  prometheus::Family<prometheus::Counter>& http_requests_;
  prometheus::Family<prometheus::Counter>& grpc_calls_;
  prometheus::Family<prometheus::Gauge>& startup_phases_;
};

Metrics::Metrics(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Metrics::~Metrics() = default;

void Metrics::CountHttpRequest(std::string_view route, int status) {
  impl_->HttpCounter(route, status).Increment();
}

void Metrics::CountGrpcCall(std::string_view method, int code) {
  impl_->GrpcCounter(method, code).Increment();
}

void Metrics::SetStartupPhase(std::string_view phase, double seconds) {
  impl_->PhaseGauge(phase).Set(seconds);
}

std::string Metrics::Text() const { return impl_->Text(); }

}  // namespace nsa
