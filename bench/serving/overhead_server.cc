// The real transports, service, engine thread and scheduler over a model that costs nothing:
// overhead_server [--streams=64] [--step-us=0] [--http-threads=4]. Prints its addresses; SIGTERM
// ends it.

#include <signal.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "bench/serving/stamped_model.h"
#include "engine/engine.h"
#include "server/grpc/grpc_server.h"
#include "server/http/http_server.h"
#include "server/http/routes.h"
#include "server/metrics/metrics.h"

namespace nsa::bench {
namespace {

struct OverheadOptions {
  int64_t streams = 64;  // in a step
  int64_t step_us = 0;   // between the ends of steps, at least
  int http_threads = HttpOptions().num_threads;
};

bool Parse(const std::vector<std::string>& arguments, OverheadOptions* options) {
  for (const std::string& argument : arguments) {
    absl::string_view value = argument;
    bool ok = false;
    if (absl::ConsumePrefix(&value, "--streams=")) {
      ok = absl::SimpleAtoi(value, &options->streams) && options->streams > 0;
    } else if (absl::ConsumePrefix(&value, "--step-us=")) {
      ok = absl::SimpleAtoi(value, &options->step_us) && options->step_us >= 0;
    } else if (absl::ConsumePrefix(&value, "--http-threads=")) {
      ok = absl::SimpleAtoi(value, &options->http_threads) && options->http_threads > 0;
    }
    if (!ok) {
      std::fprintf(stderr, "overhead_server: '%s' is not understood\n", argument.c_str());
      return false;
    }
  }
  return true;
}

ModelInfo MakeModelInfo(const Engine& engine, const StampTokenizer& tokenizer,
                        const ExecutorLimits& limits) {
  ModelInfo info;
  info.name = "stamps";
  info.attention = "none";
  info.config.vocab_size = tokenizer.vocab_size();
  info.max_request_tokens = engine.max_request_tokens();
  info.page_tokens = limits.page_tokens;
  info.num_pages = limits.num_pages;
  info.created = absl::Now();
  return info;
}

int Serve(const OverheadOptions& options, const sigset_t& signals) {
  const StampTokenizer tokenizer;
  StampExecutor executor(options.streams, std::chrono::microseconds(options.step_us));
  Engine engine(EngineOptions{.admission = {.max_queued_requests = 256}}, &executor);
  GenerationService service({.engine = &engine,
                             .tokenizer = &tokenizer,
                             .model = MakeModelInfo(engine, tokenizer, executor.limits())});
  Metrics metrics({.engine = {.model_name = service.model().name,
                              .page_tokens = service.model().page_tokens,
                              .num_pages = service.model().num_pages,
                              .stats = [&engine] { return engine.Stats(); }}});
  const ApiContext api = MakeApiContext(&service, &metrics, "bench");
  HttpOptions http_options{.port = 0, .num_threads = options.http_threads};
  http_options.on_response = [&](const std::string& route, int status) {
    metrics.CountHttpRequest(route, status);
  };
  auto grpc = GrpcServer::Start({.port = 0});
  auto http = HttpServer::Start(http_options, MakeApiHandler(&api));
  if (!grpc.ok() || !http.ok()) {
    std::fprintf(stderr, "overhead_server: cannot listen\n");
    return 1;
  }
  (*grpc)->Serve(&service);
  std::printf("HTTP  http://127.0.0.1:%d\ngRPC  127.0.0.1:%d\n", (*http)->port(), (*grpc)->port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  (*grpc)->StopServing();
  engine.Drain(absl::Now());
  return 0;
}

}  // namespace
}  // namespace nsa::bench

int main(int argc, char** argv) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  nsa::bench::OverheadOptions options;
  if (!nsa::bench::Parse(std::vector<std::string>(argv + 1, argv + argc), &options)) return 1;
  return nsa::bench::Serve(options, signals);
}
