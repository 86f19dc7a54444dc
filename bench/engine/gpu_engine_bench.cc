// gpu_engine_bench [--attention=nsa|full] [--folder=FOLDER] [--contexts=N,..] [--batches=N,..]
// [--prompts=N,..] [--max-num-seqs=N]: decode and prefill of the real engine on a GPU with an
// 8B-class model of random weights, one line of JSON per case. Without a folder that holds one
// already, the model is written to FOLDER (16 GB; default /dev/shm/nsa_8b). Batch 0 stands for the
// largest that has room.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "bench/engine/decode.h"
#include "bench/engine/prefill.h"
#include "bench/engine/random_model.h"
#include "engine/load_model.h"

namespace nsa::bench {
namespace {

constexpr int kWarmUpRounds = 2, kRounds = 5;

struct Flags {
  std::string attention = "nsa";
  std::string folder = "/dev/shm/nsa_8b";
  std::vector<int64_t> contexts = {8192, 32768, 65536, 131072};
  std::vector<int64_t> batches = {1, 8, 32, 0};
  std::vector<int64_t> prompts = {8192, 32768, 65536};
  int64_t max_num_seqs = 64;
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

void MeasureDecode(const Flags& flags, ModelExecutor& executor) {
  FillCache(executor.limits().num_pages * executor.limits().page_tokens, executor);
  for (int64_t context : flags.contexts) {
    const int64_t max_batch = MaxSequences(context, executor);
    for (int64_t wanted : flags.batches) {
      const int64_t batch = wanted == 0 ? max_batch : wanted;
      if (batch > max_batch) continue;
      std::vector<double> seconds;
      for (int round = 0; round < kWarmUpRounds + kRounds; ++round) {
        seconds.push_back(DecodeRoundSeconds(context, batch, executor));
      }
      seconds.erase(seconds.begin(), seconds.begin() + kWarmUpRounds);
      const double step_seconds = Median(seconds);
      std::printf(
          "{\"decode\": \"%s\", \"context\": %lld, \"batch\": %lld, \"ms_per_step\": "
          "%.4f, \"tokens_per_s\": %.1f, \"kv_read_mb\": %.2f}\n",
          flags.attention.c_str(), static_cast<long long>(context), static_cast<long long>(batch),
          1e3 * step_seconds, static_cast<double>(batch) / step_seconds,
          1e-6 * static_cast<double>(executor.DecodeTraffic(context).read_bytes * batch));
      std::fflush(stdout);
    }
  }
}

void MeasurePrefill(const Flags& flags, ModelExecutor& executor) {
  for (int64_t num_tokens : flags.prompts) {
    PrefillSeconds(std::min<int64_t>(num_tokens, 4096), executor);  // warm-up
    const double seconds = PrefillSeconds(num_tokens, executor);
    std::printf(
        "{\"prefill\": \"%s\", \"prompt\": %lld, \"seconds\": %.4f, \"tokens_per_s\": "
        "%.1f}\n",
        flags.attention.c_str(), static_cast<long long>(num_tokens), seconds,
        static_cast<double>(num_tokens) / seconds);
    std::fflush(stdout);
  }
}

absl::Status Run(const Flags& flags) {
  if (!std::filesystem::exists(flags.folder + "/model.safetensors")) {
    std::filesystem::create_directories(flags.folder);
    NSA_RETURN_IF_ERROR(WriteRandomModel(k8bShape, flags.folder));
  }
  LoadOptions options{.attention = flags.attention};
  options.executor.max_num_seqs = flags.max_num_seqs;
  options.executor.max_batched_tokens = 8192;
  options.executor.share_prefixes = false;  // prompts are measured that repeat
  options.executor.max_chunk_tokens = 2048;
  for (const auto& lengths : {flags.contexts, flags.prompts}) {
    for (int64_t length : lengths) {
      options.executor.max_seq_tokens = std::max(options.executor.max_seq_tokens, length + 1);
    }
  }
  NSA_ASSIGN_OR_RETURN(options.device, OpenCudaDevice(0));
  const auto on_phase = [](const std::string& phase, const std::string& detail,
                           absl::Duration elapsed) {
    std::fprintf(stderr, "%-10s %6.2f s  %s\n", phase.c_str(), absl::ToDoubleSeconds(elapsed),
                 detail.c_str());
  };
  NSA_ASSIGN_OR_RETURN(const LoadedModel model, LoadModel(flags.folder, options, on_phase));
  MeasurePrefill(flags, *model.executor);
  MeasureDecode(flags, *model.executor);
  return absl::OkStatus();
}

bool ParseList(std::string_view text, std::vector<int64_t>& values) {
  values.clear();
  for (const auto& part : absl::StrSplit(std::string(text), ',', absl::SkipEmpty())) {
    if (!absl::SimpleAtoi(part, &values.emplace_back())) return false;
  }
  return true;
}

// False for an argument that is not a flag of this program.
bool ParseFlag(std::string_view argument, Flags& flags) {
  const size_t equals = argument.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view name = argument.substr(0, equals), value = argument.substr(equals + 1);
  if (name == "--attention") {
    flags.attention = value;
  } else if (name == "--folder") {
    flags.folder = value;
  } else if (name == "--contexts") {
    return ParseList(value, flags.contexts);
  } else if (name == "--batches") {
    return ParseList(value, flags.batches);
  } else if (name == "--prompts") {
    return ParseList(value, flags.prompts);
  } else if (name == "--max-num-seqs") {
    return absl::SimpleAtoi(std::string(value), &flags.max_num_seqs);
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace nsa::bench

int main(int argc, char** argv) {
  nsa::bench::Flags flags;
  for (int i = 1; i < argc; ++i) {
    if (nsa::bench::ParseFlag(argv[i], flags)) continue;
    std::fprintf(stderr, "bad argument %s\n", argv[i]);
    return 1;
  }
  const absl::Status status = nsa::bench::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
