#include "kernels/checks.h"

namespace nsa {

void CheckDType(const TensorView& view, DType dtype, const char* name) {
  NSA_CHECK(view.dtype() == dtype)
      << name << " is " << view.ToString() << ", needs " << DTypeName(dtype);
}

void CheckActivation(const TensorView& view, const Stream& stream, const char* name) {
  const DType dtype = view.dtype();
  const bool is_half = dtype == DType::kBF16 || dtype == DType::kF16;
  NSA_CHECK(dtype == DType::kF32 || (stream.device == DeviceType::kCuda && is_half))
      << name << " is " << view.ToString() << ", an activation is f32, or bf16 or f16 on CUDA";
}

void CheckTokens(const TokenMap& tokens) {
  NSA_CHECK_SHAPE(tokens.position, {-1});
  NSA_CHECK_SHAPE(tokens.sequence, {tokens.num_tokens()});
  CheckDType(tokens.sequence, DType::kI32, "sequence");
  CheckDType(tokens.position, DType::kI32, "position");
}

void CheckPagedKv(const PagedKv& kv, const Stream& stream) {
  NSA_CHECK_SHAPE(kv.k, {-1, -1, -1, -1});
  NSA_CHECK_SHAPE(kv.v, {kv.k.dim(0), kv.k.dim(1), kv.k.dim(2), -1});
  NSA_CHECK_SHAPE(kv.table, {-1, -1});
  const DType dtype = kv.k.dtype();
  const bool is_f16_on_cuda = dtype == DType::kF16 && stream.device == DeviceType::kCuda;
  NSA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || is_f16_on_cuda) << kv.k.ToString();
  CheckDType(kv.v, kv.k.dtype(), "v");
  CheckDType(kv.table, DType::kI32, "table");
  NSA_CHECK(kv.d_k() >= 1 && kv.d_k() <= kMaxHeadDim && kv.d_v() >= 1 && kv.d_v() <= kMaxHeadDim)
      << "head dims " << kv.d_k() << " and " << kv.d_v() << ", allowed 1.." << kMaxHeadDim;
  NSA_CHECK_GE(kv.num_kv_heads(), 1);
  NSA_CHECK_GE(kv.page_rows(), 1);
  NSA_CHECK_GE(kv.table.dim(1), 1);
}

void CheckShape(const NsaShape& shape) {
  NSA_CHECK(shape.span_stride >= 1 && shape.span_tokens % shape.span_stride == 0 &&
            shape.block_tokens % shape.span_stride == 0)
      << "span_stride " << shape.span_stride << " must divide span_tokens " << shape.span_tokens
      << " and block_tokens " << shape.block_tokens;
  NSA_CHECK(shape.span_tokens >= 1 && shape.span_tokens <= shape.block_tokens)
      << "span_tokens " << shape.span_tokens << ", block_tokens " << shape.block_tokens;
  NSA_CHECK(shape.num_initial >= 0 && shape.num_local >= 0 && shape.num_selected >= 1 &&
            shape.num_initial + shape.num_local <= shape.num_selected)
      << "num_initial " << shape.num_initial << " + num_local " << shape.num_local
      << " against num_selected " << shape.num_selected;
}

void CheckAttention(const AttentionViews& views, const Stream& stream) {
  const auto& [tokens, q, kv, out, lse] = views;
  CheckTokens(tokens);
  CheckPagedKv(kv, stream);
  NSA_CHECK_SHAPE(q, {tokens.num_tokens(), -1, kv.d_k()});
  NSA_CHECK_SHAPE(out, {tokens.num_tokens(), q.dim(1), kv.d_v()});
  NSA_CHECK_SHAPE(lse, {tokens.num_tokens(), q.dim(1)});
  NSA_CHECK(q.dim(1) % kv.num_kv_heads() == 0)
      << q.dim(1) << " query heads, " << kv.num_kv_heads() << " KV heads";
  CheckActivation(q, stream, "q");
  CheckActivation(out, stream, "out");
  CheckDType(lse, DType::kF32, "lse");
}

}  // namespace nsa
