#pragma once
// A model of the paper's family with random weights, for measurements: the time of a step does not
// depend on what the weights say.

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace nsa::bench {

// Beside it: bf16, embeddings tied, K and V per branch, phi = mlp with 128 hidden units, spans
// 32/16, blocks of 64, 16 selected of which 1 + 2 forced, window 512.
struct RandomModelShape {
  int64_t num_layers = 0, hidden = 0, mlp = 0, vocab = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
};
// Of the bundled model, and of the 8B class.
inline constexpr RandomModelShape kBundledShape = {.num_layers = 6,
                                                   .hidden = 512,
                                                   .mlp = 1280,
                                                   .vocab = 8192,
                                                   .num_heads = 16,
                                                   .num_kv_heads = 1,
                                                   .head_dim = 64};
inline constexpr RandomModelShape k8bShape = {.num_layers = 32,
                                              .hidden = 4096,
                                              .mlp = 12288,
                                              .vocab = 32768,
                                              .num_heads = 64,
                                              .num_kv_heads = 4,
                                              .head_dim = 128};

// Writes config.json and model.safetensors into `folder`, which exists.
absl::Status WriteRandomModel(const RandomModelShape& shape, const std::string& folder);

}  // namespace nsa::bench
