#include "server/metrics/engine_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "prometheus/text_serializer.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

std::string Text(const EngineStats& stats) {
  const EngineMetrics metrics(
      {.model_name = "m", .page_tokens = 64, .num_pages = 100, .stats = [&] { return stats; }});
  return prometheus::TextSerializer().Serialize(metrics.Collect());
}

constexpr char kLabels[] = R"({model_name="m",engine="0"})";

TEST(EngineMetrics, EverySeriesExistsAtZero) {
  EngineStats stats;
  stats.last_step_finished = absl::Now();
  const std::string text = Text(stats);
  for (const char* series : {"vllm:num_requests_running",
                             "vllm:num_requests_waiting",
                             "vllm:kv_cache_usage_perc",
                             "vllm:num_preemptions_total",
                             "vllm:prompt_tokens_total",
                             "vllm:generation_tokens_total",
                             "nsa_kv_bytes_read_total",
                             "nsa_kv_bytes_dense_total",
                             "nsa_blocks_chosen_total",
                             "nsa_blocks_visible_total",
                             "vllm:prefix_cache_queries_total",
                             "vllm:prefix_cache_hits_total",
                             "vllm:time_to_first_token_seconds_count",
                             "vllm:inter_token_latency_seconds_count",
                             "vllm:e2e_request_latency_seconds_count",
                             "vllm:request_queue_time_seconds_count",
                             "vllm:request_prefill_time_seconds_count",
                             "vllm:request_decode_time_seconds_count",
                             "vllm:request_prompt_tokens_count",
                             "vllm:request_generation_tokens_count",
                             "vllm:iteration_tokens_total_count",
                             "nsa_step_duration_seconds_count"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + series + kLabels + " 0\n"));
  }
  for (const char* reason : {"stop", "length", "abort", "timeout", "error"}) {
    EXPECT_THAT(text, HasSubstr(std::string("vllm:request_success_total{model_name=\"m\","
                                            "engine=\"0\",finished_reason=\"") +
                                reason + "\"} 0\n"));
  }
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(vllm:admission_rejections_total{model_name="m",engine="0",reason="queue_full"} 0)"));
}

TEST(EngineMetrics, ShowsWhatTheEngineCounts) {
  EngineStats stats;
  stats.num_running = 3;
  stats.num_waiting = 4;
  stats.num_pages = 100;
  stats.num_free_pages = 75;
  stats.num_kept_pages = 15;
  stats.num_prefix_queried_tokens = 640;
  stats.num_prefix_shared_tokens = 64;
  stats.num_prompt_tokens = 1000;
  stats.num_generated_tokens = 200;
  stats.num_preemptions = 5;
  stats.num_preparing = 20;
  stats.num_rejected[0] = 6;
  stats.num_rejected[static_cast<size_t>(RejectReason::kConstraintQueue)] = 61;
  stats.num_finished[static_cast<size_t>(FinishReason::kStop)] = 7;
  stats.num_finished[static_cast<size_t>(FinishReason::kCancelled)] = 8;
  stats.traffic = {.read_bytes = 9, .dense_bytes = 90, .chosen_blocks = 16, .visible_blocks = 112};
  stats.time_to_first_token = Histogram({0.1});
  stats.time_to_first_token.Observe(0.05);
  stats.last_step_finished = absl::Now() - absl::Seconds(100);
  const std::string text = Text(stats);
  const auto has = [&](const std::string& line) { EXPECT_THAT(text, HasSubstr(line + "\n")); };
  has("vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 3");
  has("vllm:num_requests_waiting{model_name=\"m\",engine=\"0\"} 24");
  has("vllm:kv_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0.25");
  has("nsa_pages{model_name=\"m\",engine=\"0\",state=\"free\"} 60");
  has("nsa_pages{model_name=\"m\",engine=\"0\",state=\"owned\"} 25");
  has("nsa_pages{model_name=\"m\",engine=\"0\",state=\"cached\"} 15");
  has("vllm:prefix_cache_queries_total{model_name=\"m\",engine=\"0\"} 640");
  has("vllm:prefix_cache_hits_total{model_name=\"m\",engine=\"0\"} 64");
  has("vllm:cache_config_info{model_name=\"m\",engine=\"0\",block_size=\"64\","
      "num_gpu_blocks=\"100\"} 1");
  has("vllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} 1000");
  has("vllm:generation_tokens_total{model_name=\"m\",engine=\"0\"} 200");
  has("vllm:num_preemptions_total{model_name=\"m\",engine=\"0\"} 5");
  has("vllm:admission_rejections_total{model_name=\"m\",engine=\"0\",reason=\"queue_full\"} 6");
  has("vllm:admission_rejections_total{model_name=\"m\",engine=\"0\",reason=\"constraint_queue\"} "
      "61");
  has("vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"stop\"} 7");
  has("vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"abort\"} 8");
  has("nsa_kv_bytes_read_total{model_name=\"m\",engine=\"0\"} 9");
  has("nsa_kv_bytes_dense_total{model_name=\"m\",engine=\"0\"} 90");
  has("nsa_blocks_chosen_total{model_name=\"m\",engine=\"0\"} 16");
  has("nsa_blocks_visible_total{model_name=\"m\",engine=\"0\"} 112");
  has("vllm:time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.1\"} 1");
  has("# TYPE vllm:time_to_first_token_seconds histogram");
  has("# TYPE vllm:prompt_tokens_total counter");
  has("# TYPE vllm:num_requests_running gauge");
  EXPECT_THAT(text, HasSubstr("nsa_seconds_since_last_step{model_name=\"m\",engine=\"0\"} 100"));
}

}  // namespace
}  // namespace nsa
