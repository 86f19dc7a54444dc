#include "engine/model/transformer_model.h"

#include <utility>

#include "base/status.h"
#include "engine/attention/registry.h"

namespace nsa {

TransformerModel::TransformerModel(ModelConfig config, const TensorNames& names,
                                   std::unique_ptr<Attention> attention, Weights& weights)
    : config_(std::move(config)), attention_(std::move(attention)), store_(&weights) {
  const std::vector<int64_t> width = {config_.hidden_size};
  embedding_ = store_.TakePacked({{names.embedding, config_.vocab_size}}, config_.hidden_size);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    layers_.emplace_back(config_, names, layer, store_);
  }
  final_norm_ = store_.TakeF32(names.final_norm, width);
  head_ = config_.tie_embeddings
              ? embedding_
              : store_.TakePacked({{names.head, config_.vocab_size}}, config_.hidden_size);
}

absl::StatusOr<std::unique_ptr<Model>> TransformerModel::Load(ModelConfig config,
                                                              const TensorNames& names,
                                                              const ModelOptions& options,
                                                              Weights& weights) {
  const std::string attention_name =
      options.attention.empty() ? NativeAttention(config) : options.attention;
  const DType stored = weights.DTypeOf(names.embedding).value_or(DType::kF32);
  const DType native_cache = stored == DType::kBF16 ? DType::kBF16 : DType::kF32;
  NSA_ASSIGN_OR_RETURN(std::unique_ptr<Attention> attention,
                       MakeAttention(attention_name, config,
                                     {.cache_dtype = options.cache_dtype.value_or(native_cache),
                                      .max_chunk_tokens = options.max_chunk_tokens}));
  std::vector<std::string> ignorable = names.ignorable;
  if (config.tie_embeddings) ignorable.push_back(names.head);
  std::unique_ptr<TransformerModel> model(
      new TransformerModel(std::move(config), names, std::move(attention), weights));
  NSA_RETURN_IF_ERROR(model->store_.Finish(ignorable));
  return model;
}

void TransformerModel::Forward(const ForwardArgs& args, KvCache& cache, Workspace& workspace,
                               const Stream& stream) const {
  const Workspace::Scope scope(workspace);
  const int64_t num_tokens = args.token_ids.dim(0), num_rows = args.logit_tokens.dim(0);
  const TensorView x = workspace.Take(DType::kF32, {num_tokens, config_.hidden_size});
  EmbedTokens({.ids = args.token_ids, .weight = embedding_, .out = x}, stream);
  for (const TransformerLayer& layer : layers_) {
    layer.Forward(*attention_, args.step, x, cache, workspace, stream);
  }
  if (num_rows == 0) return;
  const TensorView last = workspace.Take(DType::kF32, {num_rows, config_.hidden_size});
  const TensorView normed = workspace.Take(DType::kF32, {num_rows, config_.hidden_size});
  GatherRows({.x = x, .indices = args.logit_tokens, .out = last}, stream);
  RmsNorm({.x = last, .weight = final_norm_, .out = normed, .epsilon = config_.rms_epsilon},
          stream);
  Linear({.x = normed, .weight = head_, .out = args.logits}, stream);
}

int64_t TransformerModel::WorkspaceBytes(const StepExtent& extent, const Stream& stream) const {
  const int64_t row_bytes = config_.hidden_size * DTypeBytes(DType::kF32);
  return Workspace::Rounded(extent.num_tokens * row_bytes) +
         2 * Workspace::Rounded(extent.num_rows * row_bytes) +
         TransformerLayer::WorkspaceBytes(config_, extent.num_tokens) +
         attention_->WorkspaceBytes(extent, stream);
}

}  // namespace nsa
