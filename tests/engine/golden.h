#pragma once
// Reads tests/golden/<name>/golden.safetensors; tests/golden/make_goldens.py says what is in it.

#include <cstdint>
#include <string>
#include <vector>

namespace nsa {

struct Golden {
  std::string folder;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;          // whose logits are kept
  std::vector<std::vector<float>> logits;  // one row per position
  int32_t num_prompt_tokens = 0;           // the greedy continuation's prompt: the first tokens
  std::vector<int32_t> greedy;
};

Golden ReadGolden(const std::string& name);

// Copies a golden's model files into a fresh folder and returns it; a test may then change them.
std::string CopyModel(const std::string& name);

}  // namespace nsa
