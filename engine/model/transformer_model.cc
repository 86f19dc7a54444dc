#include "engine/model/transformer_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/attention/registry.h"

namespace nsa {
namespace {

bool IsGpu(const Device* device) {
  return device != nullptr && device->type() == DeviceType::kCuda;
}

// The dtypes of a model whose embedding is stored as `stored`: the GPU's kernels compute and cache
// in the weights' own, the CPU's compute in f32 and cache in f32 or bf16.
absl::StatusOr<AttentionOptions> ChooseDtypes(DType stored, const ModelOptions& options) {
  AttentionOptions chosen{.device = options.device};
  if (!IsGpu(options.device)) {
    const DType native_cache = stored == DType::kBF16 ? DType::kBF16 : DType::kF32;
    chosen.cache_dtype = options.cache_dtype.value_or(native_cache);
    if (chosen.cache_dtype != DType::kF16) return chosen;
    return absl::InvalidArgumentError(
        "--kv-cache-dtype is f16; allowed on the CPU: auto, f32, bf16");
  }
  chosen.activation = stored;
  chosen.cache_dtype = options.cache_dtype.value_or(stored);
  if (chosen.cache_dtype == stored) return chosen;
  return absl::InvalidArgumentError(absl::StrCat(
      "--kv-cache-dtype is ", std::string(DTypeName(chosen.cache_dtype)),
      "; allowed on a GPU: auto, that of the weights (", std::string(DTypeName(stored)), ")"));
}

}  // namespace

TransformerModel::TransformerModel(ModelConfig config, const TensorNames& names,
                                   const Placement& placement, std::unique_ptr<Attention> attention,
                                   Weights& weights)
    : config_(std::move(config)),
      activation_(placement.activation),
      attention_(std::move(attention)),
      store_(&weights, placement.activation, placement.device) {
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
  NSA_ASSIGN_OR_RETURN(const AttentionOptions dtypes, ChooseDtypes(stored, options));
  NSA_ASSIGN_OR_RETURN(std::unique_ptr<Attention> attention,
                       MakeAttention(attention_name, config, dtypes));
  if (IsGpu(options.device)) {
    NSA_RETURN_IF_ERROR(CheckFreeMemory("the weights", weights.num_bytes(), *options.device));
  }
  std::vector<std::string> ignorable = names.ignorable;
  if (config.tie_embeddings) ignorable.push_back(names.head);
  const Placement placement{.device = options.device, .activation = dtypes.activation};
  std::unique_ptr<TransformerModel> model(
      new TransformerModel(std::move(config), names, placement, std::move(attention), weights));
  NSA_RETURN_IF_ERROR(model->store_.Finish(ignorable));
  return model;
}

void TransformerModel::Forward(const ForwardArgs& args, KvCache& cache, Workspace& workspace,
                               const Stream& stream) const {
  const Workspace::Scope scope(workspace);
  const int64_t num_tokens = args.token_ids.dim(0);
  const Residual residual{.x = workspace.Take(DType::kF32, {num_tokens, config_.hidden_size}),
                          .branch = workspace.Take(activation_, {num_tokens, config_.hidden_size})};
  EmbedTokens({.ids = args.token_ids, .weight = embedding_, .out = residual.x}, stream);
  for (const TransformerLayer& layer : layers_) {
    layer.Forward(*attention_, args.step, residual, cache, workspace, stream);
  }
  if (args.logit_tokens.dim(0) > 0) Logits(args, residual, workspace, stream);
}

void TransformerModel::Logits(const ForwardArgs& args, const Residual& residual,
                              Workspace& workspace, const Stream& stream) const {
  const int64_t num_rows = args.logit_tokens.dim(0);
  const TensorView x = workspace.Take(DType::kF32, {num_rows, config_.hidden_size});
  const TensorView branch = workspace.Take(activation_, {num_rows, config_.hidden_size});
  GatherRows({.x = residual.x, .indices = args.logit_tokens, .out = x}, stream);
  GatherRows({.x = residual.branch, .indices = args.logit_tokens, .out = branch}, stream);
  AddRmsNorm(
      {.x = x, .y = branch, .weight = final_norm_, .out = branch, .epsilon = config_.rms_epsilon},
      stream);
  Linear({.x = branch, .weight = head_, .out = args.logits}, stream);
}

int64_t TransformerModel::WorkspaceBytes(const StepExtent& extent, const Stream& stream) const {
  const auto bytes = [&](int64_t num_rows, DType dtype) {
    return Workspace::Rounded(num_rows * config_.hidden_size * DTypeBytes(dtype));
  };
  return bytes(extent.num_tokens, DType::kF32) + bytes(extent.num_tokens, activation_) +
         bytes(extent.num_rows, DType::kF32) + bytes(extent.num_rows, activation_) +
         TransformerLayer::WorkspaceBytes(config_, activation_, extent.num_tokens) +
         attention_->WorkspaceBytes(extent, stream);
}

}  // namespace nsa
