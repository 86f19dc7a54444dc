#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace nsa {
namespace {

using ::testing::HasSubstr;

Metrics MakeMetrics() {
  Metrics::Options options;
  options.engine.model_name = "m";
  options.engine.stats = [] { return EngineStats(); };
  options.version = "1.2";
  options.architecture = "NsaForCausalLM";
  options.attention = "nsa";
  options.http_routes = {"/a"};
  options.grpc_methods = {"Generate"};
  options.startup_phases = {"load"};
  return Metrics(std::move(options));
}

TEST(Metrics, EverySeriesExistsFromTheStart) {
  const std::string text = MakeMetrics().Text();
  EXPECT_THAT(
      text,
      HasSubstr(
          "nsa_http_requests_total{engine=\"0\",model_name=\"m\",code=\"200\",route=\"/a\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("nsa_grpc_requests_total{engine=\"0\",model_name=\"m\","
                              "code=\"OK\",method=\"Generate\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("nsa_startup_phase_seconds{engine=\"0\",model_name=\"m\",phase=\"load\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("nsa_build_info{engine=\"0\",model_name=\"m\","
                        "architecture=\"NsaForCausalLM\",attention=\"nsa\",version=\"1.2\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 0\n"));
}

TEST(Metrics, CountsAndPhases) {
  Metrics metrics = MakeMetrics();
  metrics.CountHttpRequest("/a", 200);
  metrics.CountHttpRequest("/a", 200);
  metrics.CountHttpRequest("/a", 429);
  metrics.CountHttpRequest("", 404);
  metrics.CountGrpcCall("Generate", 3);
  metrics.SetStartupPhase("load", 1.25);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("nsa_grpc_requests_total{engine=\"0\",model_name=\"m\","
                              "code=\"INVALID_ARGUMENT\",method=\"Generate\"} 1\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "nsa_http_requests_total{engine=\"0\",model_name=\"m\",code=\"200\",route=\"/a\"} 2\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "nsa_http_requests_total{engine=\"0\",model_name=\"m\",code=\"429\",route=\"/a\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("nsa_http_requests_total{engine=\"0\",model_name=\"m\",code=\"404\","
                              "route=\"none\"} 1\n"));
  EXPECT_THAT(
      text,
      HasSubstr("nsa_startup_phase_seconds{engine=\"0\",model_name=\"m\",phase=\"load\"} 1.25\n"));
}

TEST(Metrics, IsThreadSafe) {
  Metrics metrics = MakeMetrics();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        metrics.CountHttpRequest("/a", 200);
        if (i % 100 == 0) metrics.Text();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics.Text(), HasSubstr("nsa_http_requests_total{engine=\"0\",model_name=\"m\","
                                        "code=\"200\",route=\"/a\"} 4000\n"));
}

}  // namespace
}  // namespace nsa
