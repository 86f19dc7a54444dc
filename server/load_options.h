#pragma once
// What the flags say of loading a model, and of the model that is found.

#include "engine/load_model.h"
#include "server/config.h"
#include "server/model_folder.h"

namespace nsa {

// Of a config that ApplyDeviceDefaults has completed; without a device.
LoadOptions LoadOptionsOf(const ServerConfig& config);

// The longest request: what the flag says, else what the model was made for. INVALID_ARGUMENT: the
// flag says more than that.
absl::StatusOr<int64_t> MaxModelTokens(const ServerConfig& config, const ModelConfig& model);

// What the flags and the text side ask of the model.
absl::Status CheckModelConfig(const ModelConfig& model, const ServerConfig& config,
                              const TextAssets& text);

}  // namespace nsa
