#include "server/metrics/engine_metrics.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/metrics/families.h"

namespace nsa {
namespace {

using prometheus::MetricFamily;

constexpr std::pair<FinishReason, std::string_view> kReasonNames[] = {
    {FinishReason::kStop, "stop"},       {FinishReason::kLength, "length"},
    {FinishReason::kCancelled, "abort"}, {FinishReason::kTimeout, "timeout"},
    {FinishReason::kError, "error"},
};

constexpr std::pair<RejectReason, std::string_view> kRejectNames[] = {
    {RejectReason::kQueueFull, "queue_full"},
    {RejectReason::kQueuedTokens, "queued_tokens"},
    {RejectReason::kConcurrentRequests, "concurrent_requests"},
    {RejectReason::kConstraintQueue, "constraint_queue"},
};

double AsDouble(int64_t value) { return static_cast<double>(value); }

// The families of one scrape, all with the labels of one engine.
class FamilyList {
 public:
  explicit FamilyList(MetricLabels labels) : labels_(std::move(labels)) {}

  void Gauge(const char* name, const char* help, double value) {
    families_.push_back(GaugeFamily(name, help, {{labels_, value}}));
  }
  void Counter(const char* name, const char* help, int64_t value) {
    families_.push_back(CounterFamily(name, help, {{labels_, AsDouble(value)}}));
  }
  void Distribution(const char* name, const char* help, const Histogram& histogram) {
    families_.push_back(HistogramFamily(name, help, labels_, histogram));
  }
  void Add(MetricFamily family) { families_.push_back(std::move(family)); }

  MetricLabels With(std::string_view name, std::string_view value) const {
    MetricLabels labels = labels_;
    labels.emplace_back(name, value);
    return labels;
  }
  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  const MetricLabels labels_;
  std::vector<MetricFamily> families_;
};

void AddRequests(const EngineStats& stats, FamilyList* list) {
  list->Gauge("vllm:num_requests_running", "Requests in the running batch.",
              AsDouble(stats.num_running));
  list->Gauge("vllm:num_requests_waiting", "Requests waiting to be taken into the batch.",
              AsDouble(stats.num_waiting + stats.num_preparing));
  list->Counter("vllm:num_preemptions_total",
                "Times a request gave its pages back and was recomputed.", stats.num_preemptions);
  std::vector<MetricValue> finished;
  for (const auto& [reason, name] : kReasonNames) {
    finished.push_back({list->With("finished_reason", name),
                        AsDouble(stats.num_finished[static_cast<size_t>(reason)])});
  }
  list->Add(
      CounterFamily("vllm:request_success_total", "Requests that ended, by reason.", finished));
  std::vector<MetricValue> rejected;
  for (const auto& [reason, name] : kRejectNames) {
    rejected.push_back(
        {list->With("reason", name), AsDouble(stats.num_rejected[static_cast<size_t>(reason)])});
  }
  list->Add(CounterFamily("vllm:admission_rejections_total",
                          "Requests that were refused, by reason.", rejected));
}

void AddTokens(const EngineStats& stats, FamilyList* list) {
  list->Counter("vllm:prompt_tokens_total", "Prompt tokens of requests that left prefill.",
                stats.num_prompt_tokens);
  list->Counter("vllm:generation_tokens_total", "Tokens generated.", stats.num_generated_tokens);
  list->Counter("nsa_kv_bytes_read_total",
                "Bytes of keys, values and compressed rows that decode steps loaded.",
                stats.traffic.read_bytes);
  list->Counter("nsa_kv_bytes_dense_total",
                "Bytes that dense attention would have loaded in the same decode steps.",
                stats.traffic.dense_bytes);
  list->Counter("nsa_blocks_chosen_total",
                "Blocks that decode steps chose, in each layer and for each KV head.",
                stats.traffic.chosen_blocks);
  list->Counter("nsa_blocks_visible_total", "Blocks that they chose from.",
                stats.traffic.visible_blocks);
}

void AddPrefixCache(const EngineStats& stats, FamilyList* list) {
  list->Counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
                stats.num_prefix_queried_tokens);
  list->Counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
                stats.num_prefix_shared_tokens);
}

void AddPages(const EngineStats& stats, int64_t page_tokens, int64_t num_pages, FamilyList* list) {
  const int64_t num_owned = stats.num_pages - stats.num_free_pages;
  const double used = stats.num_pages > 0 ? AsDouble(num_owned) / AsDouble(stats.num_pages) : 0;
  list->Gauge("vllm:kv_cache_usage_perc", "Share of the cache's pages in use; 1 is all.", used);
  list->Add(GaugeFamily(
      "nsa_pages",
      "Pages by state: owned by a running request, cached for requests with the "
      "same beginning while there is room, free.",
      {{list->With("state", "free"), AsDouble(stats.num_free_pages - stats.num_kept_pages)},
       {list->With("state", "owned"), AsDouble(num_owned)},
       {list->With("state", "cached"), AsDouble(stats.num_kept_pages)}}));
  MetricLabels config = list->With("block_size", absl::StrCat(page_tokens));
  config.emplace_back("num_gpu_blocks", absl::StrCat(num_pages));
  list->Add(
      GaugeFamily("vllm:cache_config_info", "The cache: tokens per page, pages.", {{config, 1}}));
}

void AddLatencies(const EngineStats& stats, FamilyList* list) {
  list->Distribution("vllm:time_to_first_token_seconds", "From arrival to the first token.",
                     stats.time_to_first_token);
  list->Distribution("vllm:inter_token_latency_seconds", "Between a request's tokens.",
                     stats.inter_token_latency);
  list->Distribution("vllm:e2e_request_latency_seconds", "From arrival to the last token.",
                     stats.e2e_latency);
  list->Distribution("vllm:request_queue_time_seconds", "From arrival to the first step.",
                     stats.queue_time);
  list->Distribution("vllm:request_prefill_time_seconds", "From the first step to the first token.",
                     stats.prefill_time);
  list->Distribution("vllm:request_decode_time_seconds", "From the first token to the last.",
                     stats.decode_time);
}

void AddSizes(const EngineStats& stats, FamilyList* list) {
  list->Distribution("vllm:request_prompt_tokens", "Prompt tokens per request.",
                     stats.request_prompt_tokens);
  list->Distribution("vllm:request_generation_tokens", "Generated tokens per request.",
                     stats.request_generated_tokens);
  list->Distribution("vllm:iteration_tokens_total", "Tokens per engine step.", stats.step_tokens);
}

void AddSteps(const EngineStats& stats, FamilyList* list) {
  list->Distribution("nsa_step_duration_seconds", "Duration of an engine step.",
                     stats.step_seconds);
  list->Gauge("nsa_seconds_since_last_step",
              "Since an engine step ended; before the first one, since the start.",
              absl::ToDoubleSeconds(absl::Now() - stats.last_step_finished));
}

}  // namespace

std::vector<MetricFamily> EngineMetrics::Collect() const {
  const EngineStats stats = options_.stats();
  FamilyList list({{"model_name", options_.model_name}, {"engine", "0"}});
  AddRequests(stats, &list);
  AddTokens(stats, &list);
  AddPrefixCache(stats, &list);
  AddPages(stats, options_.page_tokens, options_.num_pages, &list);
  AddLatencies(stats, &list);
  AddSizes(stats, &list);
  AddSteps(stats, &list);
  return list.Take();
}

}  // namespace nsa
