#pragma once
// A model of the paper's family with random weights in the shape of the bundled one, for
// measurements: the time of a step does not depend on what the weights say.

#include <string>

#include "absl/status/status.h"

namespace nsa::bench {

// Writes config.json and model.safetensors (bf16, 6 layers, hidden 512, 16 query heads on one KV
// head of 64, MLP 1280, vocabulary 8192, spans 32/16, blocks of 64, 16 selected, window 512) into
// `folder`, which exists.
absl::Status WriteRandomModel(const std::string& folder);

}  // namespace nsa::bench
