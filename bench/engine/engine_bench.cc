// engine_bench [--threads=N] [--model=FOLDER] [--json]: decode and prefill of one model with its
// own sparse attention and with full attention, side by side in one run. Without a model folder, a
// model with random weights is made.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "bench/engine/decode.h"
#include "bench/engine/prefill.h"
#include "bench/engine/random_model.h"
#include "bench/engine/report.h"
#include "bench/kernels/machine.h"
#include "engine/load_model.h"

namespace nsa::bench {
namespace {

constexpr int64_t kContexts[] = {1024, 2048, 4096, 16384, 32768, 65536};
constexpr int64_t kPrompts[] = {1024, 4096};
constexpr int64_t kPrefixPrompt = 16384, kPrefixTokens = 15360;
constexpr int64_t kCacheBytes = int64_t{512} << 20;
constexpr int kMinRounds = 5, kMaxRounds = 25;
constexpr double kSecondsPerContext = 2;

struct Flags {
  int num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::string model_folder;
  bool json = false;
};

// A folder that is removed again.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = std::filesystem::temp_directory_path() / "engine_bench.XXXXXX";
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

absl::StatusOr<LoadedModel> Load(const std::string& folder, const std::string& attention,
                                 const Flags& flags, bool share_prefixes = false) {
  LoadOptions options{.attention = attention};
  options.executor.kv_cache_bytes = kCacheBytes;
  options.executor.max_num_seqs = 1;
  options.executor.share_prefixes = share_prefixes;
  options.device = OpenHostDevice(flags.num_threads, "");
  return LoadModel(folder, options, nullptr);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Rounds of the two variants take turns, so that a noisy neighbour hits both.
DecodeResult MeasureDecode(int64_t context_tokens, ModelExecutor& nsa, ModelExecutor& full) {
  DecodeRoundSeconds(context_tokens, 1, nsa);
  DecodeRoundSeconds(context_tokens, 1, full);
  std::vector<double> nsa_seconds, full_seconds;
  double spent_seconds = 0;
  for (int round = 0; round < kMaxRounds; ++round) {
    if (round >= kMinRounds && spent_seconds > kSecondsPerContext) break;
    nsa_seconds.push_back(DecodeRoundSeconds(context_tokens, 1, nsa));
    full_seconds.push_back(DecodeRoundSeconds(context_tokens, 1, full));
    spent_seconds += 16 * (nsa_seconds.back() + full_seconds.back());
  }
  return {.context_tokens = context_tokens,
          .nsa_seconds = Median(std::move(nsa_seconds)),
          .full_seconds = Median(std::move(full_seconds)),
          .nsa_kv_bytes = nsa.DecodeTraffic(context_tokens).read_bytes,
          .full_kv_bytes = full.DecodeTraffic(context_tokens).read_bytes};
}

Report Measure(LoadedModel& nsa, LoadedModel& full, const Flags& flags) {
  Report report{.model = flags.model_folder.empty()
                             ? "random weights: 6 layers, hidden 512, 16 query heads on 1 KV head"
                             : absl::StrCat(nsa.config.architecture, ", ", nsa.config.num_layers,
                                            " layers, hidden ", nsa.config.hidden_size),
                .num_threads = flags.num_threads,
                .weight_bytes = nsa.weight_bytes};
  ThreadPool threads(flags.num_threads);
  report.read_gb_per_s = MeasureMachine(threads).read_gb_per_s;
  const ExecutorLimits& limits = nsa.executor->limits();
  const int64_t capacity =
      std::min(limits.num_pages, full.executor->limits().num_pages) * limits.page_tokens;
  for (int64_t num_tokens : kPrompts) {
    if (num_tokens >= capacity) continue;
    report.prefill.push_back({.prompt_tokens = num_tokens,
                              .nsa_seconds = PrefillSeconds(num_tokens, *nsa.executor),
                              .full_seconds = PrefillSeconds(num_tokens, *full.executor)});
  }
  FillCache(std::min(capacity, kContexts[std::size(kContexts) - 1]), *nsa.executor);
  FillCache(std::min(capacity, kContexts[std::size(kContexts) - 1]), *full.executor);
  for (int64_t context_tokens : kContexts) {
    if (context_tokens > capacity) continue;
    report.decode.push_back(MeasureDecode(context_tokens, *nsa.executor, *full.executor));
  }
  return report;
}

absl::Status Run(const Flags& flags) {
  const TemporaryFolder temporary;
  std::string folder = flags.model_folder;
  if (folder.empty()) {
    folder = temporary.path();
    NSA_RETURN_IF_ERROR(WriteRandomModel(kBundledShape, folder));
  }
  NSA_ASSIGN_OR_RETURN(LoadedModel nsa, Load(folder, "nsa", flags));
  NSA_ASSIGN_OR_RETURN(LoadedModel full, Load(folder, "full", flags));
  Report report = Measure(nsa, full, flags);
  full.executor.reset();
  NSA_ASSIGN_OR_RETURN(const LoadedModel sharing, Load(folder, "nsa", flags, true));
  const ExecutorLimits& limits = sharing.executor->limits();
  if (limits.num_pages * limits.page_tokens > kPrefixPrompt) {
    const PrefixSeconds prefix = MeasurePrefix(kPrefixPrompt, kPrefixTokens, *sharing.executor);
    report.prefix.push_back({.prompt_tokens = kPrefixPrompt,
                             .num_shared = prefix.num_shared,
                             .cold_seconds = prefix.cold,
                             .warm_seconds = prefix.warm});
  }
  if (flags.json) {
    PrintJson(report);
  } else {
    PrintText(report);
  }
  return absl::OkStatus();
}

// False for an argument that is not a flag of this program.
bool ParseFlag(std::string_view argument, Flags& flags) {
  constexpr std::string_view kThreads = "--threads=", kModel = "--model=";
  if (argument == "--json") {
    flags.json = true;
  } else if (argument.starts_with(kThreads)) {
    flags.num_threads = std::atoi(argument.substr(kThreads.size()).data());
  } else if (argument.starts_with(kModel)) {
    flags.model_folder = argument.substr(kModel.size());
  } else {
    return false;
  }
  return flags.num_threads >= 1;
}

}  // namespace
}  // namespace nsa::bench

int main(int argc, char** argv) {
  nsa::bench::Flags flags;
  for (int i = 1; i < argc; ++i) {
    if (nsa::bench::ParseFlag(argv[i], flags)) continue;
    std::fprintf(stderr,
                 "bad argument %s; usage: engine_bench [--threads=N] [--model=FOLDER] [--json]\n",
                 argv[i]);
    return 1;
  }
  const absl::Status status = nsa::bench::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
