#include "engine/model/layers.h"

namespace nsa {
namespace {

constexpr int64_t kNumBranches = 3;

bool HasSeparateKv(const ModelConfig& config) { return config.nsa && !config.nsa->shared_kv; }

ProjectionColumns LayOutColumns(const ModelConfig& config) {
  ProjectionColumns columns;
  const auto place = [&](int64_t width) {
    const int64_t start = columns.num_columns;
    columns.num_columns += width;
    return start;
  };
  const auto place_kv = [&] {
    const int64_t k = place(config.num_kv_heads * config.d_k);
    return ProjectionColumns::Kv{k, place(config.num_kv_heads * config.d_v)};
  };
  columns.q = place(config.num_heads * config.d_k);
  columns.sel = place_kv();
  if (HasSeparateKv(config)) {
    columns.cmp = place_kv();
    columns.win = place_kv();
  }
  if (config.nsa) columns.gates = place(config.num_heads * kNumBranches);
  return columns;
}

// The same order as LayOutColumns.
std::vector<WeightStore::Part> ProjectionParts(const ModelConfig& config,
                                               const std::string& prefix) {
  std::vector<WeightStore::Part> parts;
  const auto add_kv = [&](const std::string& stream) {
    parts.push_back({prefix + stream + "k_proj.weight", config.num_kv_heads * config.d_k});
    parts.push_back({prefix + stream + "v_proj.weight", config.num_kv_heads * config.d_v});
  };
  parts.push_back({prefix + "q_proj.weight", config.num_heads * config.d_k});
  if (HasSeparateKv(config)) {
    for (const char* stream : {"sel.", "cmp.", "win."}) add_kv(stream);
  } else {
    add_kv("");
  }
  if (config.nsa) parts.push_back({prefix + "g_proj.weight", config.num_heads * kNumBranches});
  return parts;
}

PhiWeights TakePhiWeights(const NsaConfig& nsa, const std::string& name, int64_t num_kv_heads,
                          int64_t d, WeightStore& store) {
  const int64_t flat = nsa.shape.span_tokens * d;
  PhiWeights phi;
  switch (nsa.phi) {
    case PhiKind::kMean:
      break;
    case PhiKind::kWeightedPool:
      phi.weight = store.TakeF32(name + ".weight", {num_kv_heads, nsa.shape.span_tokens});
      break;
    case PhiKind::kLinear:
      phi.weight = store.TakeActivation(name + ".weight", {num_kv_heads, d, flat});
      break;
    case PhiKind::kMlp:
      phi.fc1 = store.TakeActivation(name + ".fc1.weight", {num_kv_heads, nsa.phi_hidden, flat});
      phi.fc2 = store.TakeActivation(name + ".fc2.weight", {num_kv_heads, d, nsa.phi_hidden});
      break;
  }
  return phi;
}

}  // namespace

TransformerLayer::TransformerLayer(const ModelConfig& config, const TensorNames& names,
                                   int64_t layer, WeightStore& store)
    : config_(config), layer_(layer), columns_(LayOutColumns(config)) {
  const std::string prefix = names.layers + std::to_string(layer) + ".";
  const std::string attention = prefix + names.attention, mlp = prefix + names.mlp;
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  attention_norm_ = store.TakeF32(prefix + names.attention_norm, {hidden});
  mlp_norm_ = store.TakeF32(prefix + names.mlp_norm, {hidden});
  qkv_gates_ = store.TakePacked(ProjectionParts(config, attention), hidden);
  o_ = store.TakePacked({{attention + "o_proj.weight", hidden}}, config.num_heads * config.d_v);
  gate_up_ = store.TakePacked({{mlp + "gate_proj.weight", inner}, {mlp + "up_proj.weight", inner}},
                              hidden);
  down_ = store.TakePacked({{mlp + "down_proj.weight", hidden}}, inner);
  if (config.nsa) TakePhi(attention + "cmp.", store);
}

void TransformerLayer::TakePhi(const std::string& prefix, WeightStore& store) {
  const NsaConfig& nsa = *config_.nsa;
  const int64_t num_kv_heads = config_.num_kv_heads;
  phi_k_ = TakePhiWeights(nsa, prefix + "phi_k", num_kv_heads, config_.d_k, store);
  phi_v_ = TakePhiWeights(nsa, prefix + "phi_v", num_kv_heads, config_.d_v, store);
  if (!nsa.has_position) return;
  const int64_t span = nsa.shape.span_tokens;
  phi_k_.position = store.TakeF32(prefix + "pos_k", {num_kv_heads, span, config_.d_k});
  phi_v_.position = store.TakeF32(prefix + "pos_v", {num_kv_heads, span, config_.d_v});
}

void TransformerLayer::Forward(const Attention& attention, const StepView& step,
                               const Residual& residual, KvCache& cache, Workspace& workspace,
                               const Stream& stream) const {
  Attend(attention, step, residual, cache, workspace, stream);
  Mlp(residual, workspace, stream);
}

void TransformerLayer::Attend(const Attention& attention, const StepView& step,
                              const Residual& residual, KvCache& cache, Workspace& workspace,
                              const Stream& stream) const {
  const Workspace::Scope scope(workspace);
  const auto& [x, branch] = residual;
  const DType activation = branch.dtype();
  const int64_t num_tokens = x.dim(0);
  AddRmsNorm({.x = x,
              .y = layer_ == 0 ? TensorView() : branch,
              .weight = attention_norm_,
              .out = branch,
              .epsilon = config_.rms_epsilon},
             stream);
  AttentionInputs inputs{
      .packed = workspace.Take(activation, {num_tokens, columns_.num_columns}),
      .columns = columns_,
      .out = workspace.Take(activation, {num_tokens, config_.num_heads, config_.d_v})};
  if (config_.nsa) {
    inputs.phi_k = &phi_k_;
    inputs.phi_v = &phi_v_;
  }
  Linear({.x = branch, .weight = qkv_gates_, .out = inputs.packed}, stream);
  attention.Forward(layer_, step, inputs, cache, workspace, stream);
  const TensorView heads = inputs.out.Reshape({num_tokens, config_.num_heads * config_.d_v});
  Linear({.x = heads, .weight = o_, .out = branch}, stream);
}

void TransformerLayer::Mlp(const Residual& residual, Workspace& workspace,
                           const Stream& stream) const {
  const Workspace::Scope scope(workspace);
  const auto& [x, branch] = residual;
  const int64_t num_tokens = x.dim(0), inner = config_.intermediate_size;
  const TensorView gate_up = workspace.Take(branch.dtype(), {num_tokens, 2 * inner});
  const TensorView product = workspace.Take(branch.dtype(), {num_tokens, inner});
  AddRmsNorm(
      {.x = x, .y = branch, .weight = mlp_norm_, .out = branch, .epsilon = config_.rms_epsilon},
      stream);
  Linear({.x = branch, .weight = gate_up_, .out = gate_up}, stream);
  SwiGlu({.gate_up = gate_up, .out = product}, stream);
  Linear({.x = product, .weight = down_, .out = branch}, stream);
}

int64_t TransformerLayer::WorkspaceBytes(const ModelConfig& config, DType activation,
                                         int64_t num_tokens) {
  const auto bytes = [&](int64_t width) {
    return Workspace::Rounded(num_tokens * width * DTypeBytes(activation));
  };
  const int64_t attention =
      bytes(LayOutColumns(config).num_columns) + bytes(config.num_heads * config.d_v);
  const int64_t mlp = bytes(2 * config.intermediate_size) + bytes(config.intermediate_size);
  return attention + mlp;
}

}  // namespace nsa
