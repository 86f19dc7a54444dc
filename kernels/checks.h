#pragma once
// Contract checks that several operations share. A violation is a programmer error and ends the
// process.

#include <cstdint>

#include "base/tensor_view.h"
#include "kernels/nsa_shape.h"
#include "kernels/paged_kv.h"

namespace nsa {

// Limits that size the CPU kernels' scratch on the stack.
inline constexpr int64_t kMaxHeadDim = 256;           // d_k and d_v of a cache
inline constexpr int64_t kMaxSpanElements = 1 << 15;  // span_tokens * max(d_k, d_v)
inline constexpr int64_t kMaxPhiHidden = 1 << 12;     // hidden units of phi = mlp

void CheckDType(const TensorView& view, DType dtype, const char* name);
// sequence and position: i32 of equal length.
void CheckTokens(const TokenMap& tokens);
// k, v and table: ranks, dtypes and extents that agree with each other.
void CheckPagedKv(const PagedKv& kv);
// The divisibility rules of docs/nsa.md, section 1.
void CheckShape(const NsaShape& shape);
// q [T, H, d_k], out [T, H, d_v] and lse [T, H], all f32, over `kv`; H a multiple of K.
void CheckAttention(const TokenMap& tokens, const TensorView& q, const PagedKv& kv,
                    const TensorView& out, const TensorView& lse);

}  // namespace nsa
