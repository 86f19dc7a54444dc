#pragma once
// A model of the paper's family with random weights, for measurements: the time of a step does not
// depend on what the weights say.

#include <string>

#include "absl/status/status.h"

namespace nsa::bench {

// Writes config.json and model.safetensors (bf16, 4 layers, hidden 1024, 16 query heads on one KV
// head of 64, MLP 2816, vocabulary 8192, spans 32/16, blocks of 64, 16 selected, window 512) into
// `folder`, which exists.
absl::Status WriteRandomModel(const std::string& folder);

}  // namespace nsa::bench
