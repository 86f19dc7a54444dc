#pragma once
// The dense operations of a Llama-shaped layer. "Activation" is a dtype: f32 on the CPU; f32, bf16
// or f16 on CUDA, one for all tensors of a call. T = tokens. Determinism: the same inputs give the
// same bits; on the CPU one output's order of accumulation depends on its row alone, never on T or
// the thread count. On CUDA Linear may choose another order for another T.

#include <cstdint>

#include "base/tensor_view.h"
#include "kernels/device.h"

namespace nsa {

// Outputs of one panel of a packed weight: two vectors of the widest CPU target.
inline constexpr int64_t kPanelOutputs = 32;

// A weight matrix W [out, in] in the backend's own order, made once at load by PackWeight.
// On the CPU: panels of P = kPanelOutputs outputs, [ceil(out / P), in, P], zero-padded; bf16 or
// f32. On CUDA: row-major [out, in], of the activation dtype.
struct PackedWeight {
  int64_t num_outputs = 0;
  int64_t num_inputs = 0;
  TensorView data;  // of any shape with the bytes of its layout
};
// CPU: element of W[output, input] in packed.data.
inline int64_t PackedIndex(const PackedWeight& packed, int64_t output, int64_t input) {
  return (output / kPanelOutputs * packed.num_inputs + input) * kPanelOutputs +
         output % kPanelOutputs;
}
// CPU: bytes that PackWeight writes for a [num_outputs, num_inputs] matrix.
int64_t PackedWeightBytes(int64_t num_outputs, int64_t num_inputs, DType dtype);
// CPU: packs rows [first_output, first_output + weight.dim(0)) of a matrix from `weight` [rows, in]
// (f32, bf16 or f16; converted to packed.data's dtype), so that matrices that are used together can
// be packed into one. The piece with the last row also zeroes the padding.
void PackWeight(const TensorView& weight, int64_t first_output, PackedWeight& packed);

// out = x W^T, fp32 accumulation; on the CPU over `in` in ascending order, one chain per output.
struct LinearArgs {
  TensorView x;  // [T, in] activation
  PackedWeight weight;
  TensorView out;  // out: [T, out] activation, or f32
};
void Linear(const LinearArgs& args, const Stream& stream);

// out[t] = row ids[t] of W. Ids must lie in [0, num_outputs).
struct EmbedArgs {
  TensorView ids;  // [T] i32
  PackedWeight weight;
  TensorView out;  // out: [T, in] f32
};
void EmbedTokens(const EmbedArgs& args, const Stream& stream);

// x += y, then out = x / sqrt(mean(x^2) + epsilon) * weight.
struct AddRmsNormArgs {
  TensorView x;       // in/out: [T, D] f32, the residual stream
  TensorView y;       // [T, D] activation; empty: nothing is added
  TensorView weight;  // [D] f32
  TensorView out;     // out: [T, D] activation; may be y
  float epsilon = 0;
};
void AddRmsNorm(const AddRmsNormArgs& args, const Stream& stream);

// out = silu(gate) * up, where gate and up are the two halves of a row.
struct SwiGluArgs {
  TensorView gate_up;  // [T, 2 * D] activation
  TensorView out;      // out: [T, D] activation
};
void SwiGlu(const SwiGluArgs& args, const Stream& stream);

// out[i] = x[indices[i]]
struct GatherRowsArgs {
  TensorView x;        // [T, D] activation
  TensorView indices;  // [N] i32, in [0, T)
  TensorView out;      // out: [N, D] of x's dtype
};
void GatherRows(const GatherRowsArgs& args, const Stream& stream);

}  // namespace nsa
