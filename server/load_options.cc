#include "server/load_options.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa {

LoadOptions LoadOptionsOf(const ServerConfig& config) {
  return {
      .attention = config.attention,
      .cache_dtype = config.kv_cache_dtype,
      .executor = {.kv_cache_bytes = config.kv_cache_bytes,
                   .memory_utilization = config.gpu_memory_utilization,
                   .max_num_seqs = config.max_num_seqs,
                   .max_chunk_tokens = std::min(config.max_chunk_tokens, config.max_batched_tokens),
                   .max_batched_tokens = config.max_batched_tokens,
                   .max_seq_tokens = config.max_model_tokens,
                   .record_graphs = config.cuda_graphs,
                   .share_prefixes = config.prefix_caching}};
}

absl::StatusOr<int64_t> MaxModelTokens(const ServerConfig& config, const ModelConfig& model) {
  if (config.max_model_tokens == 0) return model.max_position;
  if (config.max_model_tokens <= model.max_position) return config.max_model_tokens;
  return absl::InvalidArgumentError(absl::StrCat("--max-model-tokens is ", config.max_model_tokens,
                                                 "; the model's max_position_embeddings is ",
                                                 model.max_position));
}

absl::Status CheckModelConfig(const ModelConfig& model, const ServerConfig& config,
                              const TextAssets& text) {
  NSA_RETURN_IF_ERROR(MaxModelTokens(config, model).status());
  if (text.tokenizer->vocab_size() > model.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.model, ": ", text.tokenizer_file, " has ", text.tokenizer->vocab_size(),
                     " tokens, vocab_size of config.json is ", model.vocab_size));
  }
  for (const int32_t token : text.eos_tokens) {
    if (token < model.vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(config.model, ": generation_config.json: eos_token_id is ", token,
                     "; allowed: 0 to ", model.vocab_size - 1));
  }
  return absl::OkStatus();
}

}  // namespace nsa
