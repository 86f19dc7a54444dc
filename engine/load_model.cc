#include "engine/load_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status.h"
#include "engine/attention/registry.h"
#include "engine/loader/mapped_file.h"

namespace nsa {
namespace {

// Reports each phase with the time since the one before it.
class PhaseClock {
 public:
  explicit PhaseClock(const PhaseCallback& on_phase) : on_phase_(on_phase) {}
  void Finish(const std::string& phase, const std::string& detail) {
    const absl::Time now = absl::Now();
    if (on_phase_) on_phase_(phase, detail, now - started_);
    started_ = now;
  }

 private:
  const PhaseCallback& on_phase_;
  absl::Time started_ = absl::Now();
};

absl::StatusOr<ModelConfig> ReadConfig(const std::string& folder) {
  NSA_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(folder + "/config.json"));
  return ParseModelConfig(file.text());
}

// The error of a file of `folder`, which itself names the file only.
absl::Status InFolder(const std::string& folder, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(folder, ": ", status.message()));
}

std::string Mib(int64_t num_bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(num_bytes) / (1 << 20));
}

absl::StatusOr<std::unique_ptr<Model>> ReadModel(const std::string& folder, ModelConfig config,
                                                 const ModelOptions& options, PhaseClock& clock) {
  NSA_ASSIGN_OR_RETURN(Weights weights, Weights::Open(folder));
  NSA_ASSIGN_OR_RETURN(auto model, MakeModel(std::move(config), options, weights));
  clock.Finish("weights", absl::StrCat(Mib(weights.num_bytes()), " read, ",
                                       Mib(model->weight_bytes()), " in memory"));
  return model;
}

std::string ConfigLine(const ModelConfig& config) {
  return absl::StrCat(config.architecture, ", ", config.num_layers, " layers, hidden ",
                      config.hidden_size, ", ", config.num_heads, " query heads on ",
                      config.num_kv_heads, " KV heads");
}

std::string CacheLine(ModelExecutor& executor) {
  const ExecutorLimits& limits = executor.limits();
  return absl::StrCat(Mib(executor.kv_cache_bytes()), ": ", limits.num_pages, " pages of ",
                      limits.page_tokens, " tokens, ", limits.max_num_seqs,
                      " sequences of at most ", limits.max_seq_pages * limits.page_tokens,
                      " tokens; activations ", Mib(executor.workspace_bytes()), ", ",
                      Mib(executor.device().free_bytes()), " left free");
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const std::string& folder, const LoadOptions& options,
                                      const PhaseCallback& on_phase) {
  PhaseClock clock(on_phase);
  const std::shared_ptr<Device> device =
      options.device != nullptr ? options.device : OpenHostDevice(/*num_threads=*/1, /*note=*/"");
  NSA_RETURN_IF_ERROR(CheckExecutorOptions(options.executor, *device));
  absl::StatusOr<ModelConfig> config = ReadConfig(folder);
  if (!config.ok()) return InFolder(folder, config.status());
  if (options.check_config) NSA_RETURN_IF_ERROR(options.check_config(*config));
  clock.Finish("config", ConfigLine(*config));

  const ModelOptions model_options{
      .attention = options.attention, .cache_dtype = options.cache_dtype, .device = device.get()};
  auto model = ReadModel(folder, *std::move(config), model_options, clock);
  if (!model.ok()) return InFolder(folder, model.status());
  LoadedModel loaded{.config = (*model)->config(),
                     .attention = NativeAttention((*model)->config()),
                     .cache_dtype = (*model)->attention().cache_spec().dtype,
                     .weight_bytes = (*model)->weight_bytes()};
  if (!options.attention.empty()) {
    loaded.attention_overridden = options.attention != loaded.attention;
    loaded.attention = options.attention;
  }
  NSA_ASSIGN_OR_RETURN(loaded.executor,
                       ModelExecutor::Make(*std::move(model), device, options.executor));
  clock.Finish("kv cache", CacheLine(*loaded.executor));
  return loaded;
}

}  // namespace nsa
