#pragma once
// Contract checks that several operations share. A violation is a programmer error and ends the
// process.

#include <cstdint>

#include "base/tensor_view.h"
#include "kernels/device.h"
#include "kernels/kv_store.h"
#include "kernels/nsa_shape.h"
#include "kernels/paged_kv.h"

namespace nsa {

// Limits that size the CPU kernels' scratch on the stack.
inline constexpr int64_t kMaxHeadDim = 256;           // d_k and d_v of a cache
inline constexpr int64_t kMaxSpanElements = 1 << 15;  // span_tokens * max(d_k, d_v)
inline constexpr int64_t kMaxPhiHidden = 1 << 12;     // hidden units of phi = mlp

void CheckDType(const TensorView& view, DType dtype, const char* name);
// f32 on the CPU; f32, bf16 or f16 on CUDA.
void CheckActivation(const TensorView& view, const Stream& stream, const char* name);
// sequence and position: i32 of equal length.
void CheckTokens(const TokenMap& tokens);
// k, v and table: ranks, dtypes and extents that agree with each other. Caches are f32 or bf16, on
// CUDA f16 too.
void CheckPagedKv(const PagedKv& kv, const Stream& stream);
// The contract of StoreProjections.
void CheckStoreProjections(const StoreProjectionsArgs& args, const Stream& stream);
// The divisibility rules of docs/nsa.md, section 1.
void CheckShape(const NsaShape& shape);
// What every attention over one PagedKv has: q [T, H, d_k] and out [T, H, d_v] activations, lse
// [T, H] f32; H a multiple of K.
struct AttentionViews {
  const TokenMap& tokens;
  const TensorView& q;
  const PagedKv& kv;
  const TensorView& out;
  const TensorView& lse;
};
void CheckAttention(const AttentionViews& views, const Stream& stream);

}  // namespace nsa
