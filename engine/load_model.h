#pragma once
// From a model folder to an executor that is ready to run.

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/config.h"
#include "engine/model/registry.h"
#include "engine/model_executor.h"
#include "engine/runtime/device.h"

namespace nsa {

struct LoadOptions {
  std::string attention;             // as ModelOptions
  std::optional<DType> cache_dtype;  // as ModelOptions
  ExecutorOptions executor;
  std::shared_ptr<Device> device;  // null: the CPU with one thread
  // Called between reading config.json and the weights; an error ends the loading. May be empty.
  std::function<absl::Status(const ModelConfig& config)> check_config;
};

// Called when a phase of loading has finished, with its name ("config", "weights", "kv cache"), a
// line about what was found, and the time it took.
using PhaseCallback = std::function<void(const std::string& phase, const std::string& detail,
                                         absl::Duration elapsed)>;

struct LoadedModel {
  ModelConfig config;
  std::string attention;  // the variant that runs
  bool attention_overridden = false;
  DType cache_dtype = DType::kF32;
  int64_t weight_bytes = 0;
  std::unique_ptr<ModelExecutor> executor;
};

// Reads config.json and the weights of `folder`, and makes the executor. The errors are those of
// CheckExecutorOptions, ParseModelConfig, check_config, Weights, MakeAttention and
// ModelExecutor::Make; those about a file begin with the folder. All but the last two come before
// the weights are read.
absl::StatusOr<LoadedModel> LoadModel(const std::string& folder, const LoadOptions& options,
                                      const PhaseCallback& on_phase);

}  // namespace nsa
