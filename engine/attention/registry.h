#pragma once
// Which attention variants exist.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/attention/attention.h"
#include "engine/config.h"

namespace nsa {

struct AttentionOptions {
  DType activation = DType::kF32;   // of the projections and the output
  DType cache_dtype = DType::kF32;  // f32 or bf16; on CUDA f16 too
  Device* device = nullptr;         // outlives the attention; null: the host
};

// The variant that a model was made with: "nsa" with sparse settings, else "full".
std::string NativeAttention(const ModelConfig& config);

// The variant `name` for a model; "full" runs on any model, over its own caches. INVALID_ARGUMENT:
// an unknown name, or "nsa" for a model without sparse settings.
absl::StatusOr<std::unique_ptr<Attention>> MakeAttention(const std::string& name,
                                                         const ModelConfig& config,
                                                         const AttentionOptions& options);

}  // namespace nsa
