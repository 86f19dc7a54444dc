#include "bench/engine/report.h"

#include <cstdio>

namespace nsa::bench {
namespace {

constexpr double kMib = 1 << 20;
constexpr double kMaxGrowth = 2, kMinSpeedup = 4;  // limits at 32k context

const DecodeResult* FindContext(const Report& report, int64_t context_tokens) {
  for (const DecodeResult& result : report.decode) {
    if (result.context_tokens == context_tokens) return &result;
  }
  return nullptr;
}

// What a decode step reads, weights and cache, as a share of what the machine can read.
double PercentOfRead(const Report& report, double seconds, int64_t kv_bytes) {
  const double gb_per_s = static_cast<double>(report.weight_bytes + kv_bytes) / seconds / 1e9;
  return 100 * gb_per_s / report.read_gb_per_s;
}

void PrintDecode(const Report& report) {
  std::printf("decode, one sequence, random cache contents\n");
  std::printf("%9s %12s %12s %9s %13s %13s %9s %9s %9s\n", "context", "NSA ms/tok", "full ms/tok",
              "full/NSA", "NSA KV MiB", "full KV MiB", "full/NSA", "NSA %read", "full %read");
  for (const DecodeResult& r : report.decode) {
    std::printf("%9lld %12.2f %12.2f %8.2fx %13.2f %13.2f %8.2fx %8.0f%% %9.0f%%\n",
                static_cast<long long>(r.context_tokens), 1e3 * r.nsa_seconds, 1e3 * r.full_seconds,
                r.full_seconds / r.nsa_seconds, static_cast<double>(r.nsa_kv_bytes) / kMib,
                static_cast<double>(r.full_kv_bytes) / kMib,
                static_cast<double>(r.full_kv_bytes) / static_cast<double>(r.nsa_kv_bytes),
                PercentOfRead(report, r.nsa_seconds, r.nsa_kv_bytes),
                PercentOfRead(report, r.full_seconds, r.full_kv_bytes));
  }
}

void PrintPrefill(const Report& report) {
  std::printf("\nprefill, one prompt through the engine\n");
  std::printf("%9s %12s %12s %9s\n", "prompt", "NSA tok/s", "full tok/s", "NSA/full");
  for (const PrefillResult& r : report.prefill) {
    const auto num_tokens = static_cast<double>(r.prompt_tokens);
    std::printf("%9lld %12.0f %12.0f %8.2fx\n", static_cast<long long>(r.prompt_tokens),
                num_tokens / r.nsa_seconds, num_tokens / r.full_seconds,
                r.full_seconds / r.nsa_seconds);
  }
}

void PrintPrefix(const Report& report) {
  constexpr double kMinPrefixSpeedup = 8;
  for (const PrefixResult& r : report.prefix) {
    const double speedup = r.cold_seconds / r.warm_seconds;
    std::printf(
        "\nfirst token of %lld tokens: %.3f s, with %lld of them cached %.3f s: %.1fx, at least "
        "%.0fx: %s\n",
        static_cast<long long>(r.prompt_tokens), r.cold_seconds,
        static_cast<long long>(r.num_shared), r.warm_seconds, speedup, kMinPrefixSpeedup,
        speedup >= kMinPrefixSpeedup ? "reached" : "MISSED");
  }
}

void PrintTargets(const Report& report) {
  const DecodeResult* near = FindContext(report, 2048);
  const DecodeResult* far = FindContext(report, 32768);
  if (near == nullptr || far == nullptr) return;
  const double growth = far->nsa_seconds / near->nsa_seconds;
  const double speedup = far->full_seconds / far->nsa_seconds;
  std::printf("\nNSA at 32k against NSA at 2k: %.2fx its time, limit %.0fx: %s\n", growth,
              kMaxGrowth, growth <= kMaxGrowth ? "reached" : "MISSED");
  std::printf("full against NSA at 32k: %.2fx its time, at least %.0fx: %s\n", speedup, kMinSpeedup,
              speedup >= kMinSpeedup ? "reached" : "MISSED");
}

}  // namespace

void PrintText(const Report& report) {
  std::printf("%s\n%d threads; weights %.1f MiB; the machine reads %.1f GB/s\n\n",
              report.model.c_str(), report.num_threads,
              static_cast<double>(report.weight_bytes) / kMib, report.read_gb_per_s);
  PrintDecode(report);
  PrintPrefill(report);
  PrintPrefix(report);
  PrintTargets(report);
}

void PrintJson(const Report& report) {
  std::printf(
      "{\"num_threads\": %d, \"weight_bytes\": %lld, \"read_gb_per_s\": %.2f,\n \"decode\": [",
      report.num_threads, static_cast<long long>(report.weight_bytes), report.read_gb_per_s);
  const char* separator = "\n";
  for (const DecodeResult& r : report.decode) {
    std::printf(
        "%s  {\"context_tokens\": %lld, \"nsa_ms\": %.4f, \"full_ms\": %.4f, \"nsa_kv_bytes\": "
        "%lld, \"full_kv_bytes\": %lld}",
        separator, static_cast<long long>(r.context_tokens), 1e3 * r.nsa_seconds,
        1e3 * r.full_seconds, static_cast<long long>(r.nsa_kv_bytes),
        static_cast<long long>(r.full_kv_bytes));
    separator = ",\n";
  }
  std::printf("],\n \"prefill\": [");
  separator = "\n";
  for (const PrefillResult& r : report.prefill) {
    std::printf("%s  {\"prompt_tokens\": %lld, \"nsa_seconds\": %.4f, \"full_seconds\": %.4f}",
                separator, static_cast<long long>(r.prompt_tokens), r.nsa_seconds, r.full_seconds);
    separator = ",\n";
  }
  std::printf("],\n \"prefix\": [");
  separator = "\n";
  for (const PrefixResult& r : report.prefix) {
    std::printf(
        "%s  {\"prompt_tokens\": %lld, \"num_shared\": %lld, \"cold_seconds\": %.4f, "
        "\"warm_seconds\": %.4f}",
        separator, static_cast<long long>(r.prompt_tokens), static_cast<long long>(r.num_shared),
        r.cold_seconds, r.warm_seconds);
    separator = ",\n";
  }
  std::printf("]}\n");
}

}  // namespace nsa::bench
