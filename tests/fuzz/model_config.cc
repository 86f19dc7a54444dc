#include "base/check.h"
#include "engine/config.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void ModelConfig(std::string_view input) {
  const auto config = ParseModelConfig(input);
  if (!config.ok()) return;
  NSA_CHECK_GE(config->num_kv_heads, 1);
  NSA_CHECK_EQ(config->num_heads % config->num_kv_heads, 0);
  NSA_CHECK_EQ(std::ssize(RopeFrequencies(*config)), config->d_k / 2);
  for (const int32_t token : config->eos_tokens) {
    NSA_CHECK(token >= 0 && token < config->vocab_size) << token;
  }
}

}  // namespace nsa::fuzz
