#pragma once
// Which architectures exist, and how a model folder becomes a Model.

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/loader/weights.h"
#include "engine/model/model.h"

namespace nsa {

struct ModelOptions {
  std::string attention;             // a name of attention/registry.cc; empty = the model's own
  std::optional<DType> cache_dtype;  // absent = bf16 for bf16 weights, on a GPU also f16 for f16,
                                     // else f32; on a GPU no other is possible
  Device* device = nullptr;          // outlives the model; null: the host
};

// One factory per architecture, each in the file of its name. They take every tensor from
// `weights`, which is no longer needed afterwards.
using LoadFunction = absl::StatusOr<std::unique_ptr<Model>>(ModelConfig config,
                                                            const ModelOptions& options,
                                                            Weights& weights);
LoadFunction LoadNsaPaper, LoadLlamaNsa, LoadFlaNsa, LoadLlama;

// Calls the factory of config.architecture.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(ModelConfig config, const ModelOptions& options,
                                                 Weights& weights);

}  // namespace nsa
