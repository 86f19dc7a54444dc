#include "clients/cli/report.h"

#include <cstdio>
#include <iterator>

namespace nsa::cli {
namespace {

template <typename... Values>
std::string Format(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof(text), format, values...);
  return text;
}

double Rate(int64_t num_tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(num_tokens) / seconds : 0;
}

}  // namespace

std::string FormatBytes(int64_t num_bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(num_bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return Format(unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
}

std::string FormatReport(const v1::Usage& usage) {
  // The first token comes out of the prefill; the decode steps make the others.
  const int64_t num_decoded = usage.completion_tokens() > 0 ? usage.completion_tokens() - 1 : 0;
  std::string report = Format(
      "%lld tokens, %.1f tokens/s; prompt %lld tokens, %.0f tokens/s; queue %.2f s, prefill %.2f "
      "s, "
      "decode %.2f s\n",
      static_cast<long long>(usage.completion_tokens()), Rate(num_decoded, usage.decode_seconds()),
      static_cast<long long>(usage.prompt_tokens()),
      Rate(usage.prompt_tokens(), usage.prefill_seconds()), usage.queue_seconds(),
      usage.prefill_seconds(), usage.decode_seconds());
  report += "KV cache read: " + FormatBytes(usage.kv_read_bytes()) +
            "; full attention would have read " + FormatBytes(usage.kv_dense_bytes());
  if (usage.kv_read_bytes() > 0) {
    report += Format(" (%.2f times as much)", static_cast<double>(usage.kv_dense_bytes()) /
                                                  static_cast<double>(usage.kv_read_bytes()));
  }
  return report + "\n";
}

std::string StatusName(grpc::StatusCode code) {
  constexpr const char* kNames[] = {"OK",
                                    "CANCELLED",
                                    "UNKNOWN",
                                    "INVALID_ARGUMENT",
                                    "DEADLINE_EXCEEDED",
                                    "NOT_FOUND",
                                    "ALREADY_EXISTS",
                                    "PERMISSION_DENIED",
                                    "RESOURCE_EXHAUSTED",
                                    "FAILED_PRECONDITION",
                                    "ABORTED",
                                    "OUT_OF_RANGE",
                                    "UNIMPLEMENTED",
                                    "INTERNAL",
                                    "UNAVAILABLE",
                                    "DATA_LOSS",
                                    "UNAUTHENTICATED"};
  const auto number = static_cast<size_t>(code);
  return number < std::size(kNames) ? kNames[number] : "code " + std::to_string(number);
}

std::string FormatProgress(const v1::Progress& progress) {
  return Format("prefill %lld / %lld tokens", static_cast<long long>(progress.prompt_tokens_done()),
                static_cast<long long>(progress.prompt_tokens_total()));
}

}  // namespace nsa::cli
