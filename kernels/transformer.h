#pragma once
// The dense operations of a Llama-shaped layer. Activations are f32 on the CPU; T = tokens.
// Determinism: one output's order of accumulation depends on its row alone, never on T or the
// thread count.

#include <cstdint>

#include "base/tensor_view.h"
#include "kernels/device.h"

namespace nsa {

// Outputs of one panel of a packed weight: two vectors of the widest CPU target.
inline constexpr int64_t kPanelOutputs = 32;

// A weight matrix W [out, in] in the backend's own order, made once at load by PackWeight.
// On the CPU: panels of P = kPanelOutputs outputs, [ceil(out / P), in, P], zero-padded.
struct PackedWeight {
  int64_t num_outputs = 0;
  int64_t num_inputs = 0;
  TensorView data;  // bf16 or f32, of any shape with PackedWeightBytes
};
// Element of W[output, input] in packed.data.
inline int64_t PackedIndex(const PackedWeight& packed, int64_t output, int64_t input) {
  return (output / kPanelOutputs * packed.num_inputs + input) * kPanelOutputs +
         output % kPanelOutputs;
}
// Bytes that PackWeight writes for a [num_outputs, num_inputs] matrix.
int64_t PackedWeightBytes(int64_t num_outputs, int64_t num_inputs, DType dtype);
// Packs rows [first_output, first_output + weight.dim(0)) of a matrix from `weight` [rows, in]
// (f32, bf16 or f16; converted to packed.data's dtype), so that matrices that are used together can
// be packed into one. The piece with the last row also zeroes the padding.
void PackWeight(const TensorView& weight, int64_t first_output, PackedWeight& packed);

// out = x W^T, fp32 accumulation over `in` in ascending order, one chain per output.
struct LinearArgs {
  TensorView x;  // [T, in] f32
  PackedWeight weight;
  TensorView out;  // out: [T, out] f32
};
void Linear(const LinearArgs& args, const Stream& stream);

// out[t] = row ids[t] of W. Ids must lie in [0, num_outputs).
struct EmbedArgs {
  TensorView ids;  // [T] i32
  PackedWeight weight;
  TensorView out;  // out: [T, in] f32
};
void EmbedTokens(const EmbedArgs& args, const Stream& stream);

// out = x / sqrt(mean(x^2) + epsilon) * weight
struct RmsNormArgs {
  TensorView x;       // [T, D] f32
  TensorView weight;  // [D] f32
  TensorView out;     // out: [T, D] f32
  float epsilon = 0;
};
void RmsNorm(const RmsNormArgs& args, const Stream& stream);

// Rotates pairs (c, c + d/2) of every head by position * inv_freq[c], in place. Positions of -1 are
// left alone.
struct RopeArgs {
  TensorView x;          // in/out: [T, heads, d] f32
  TensorView positions;  // [T] i32
  TensorView inv_freq;   // [d / 2] f32
};
void ApplyRope(const RopeArgs& args, const Stream& stream);

// out = silu(gate) * up, where gate and up are the two halves of a row.
struct SwiGluArgs {
  TensorView gate_up;  // [T, 2 * D] f32
  TensorView out;      // out: [T, D] f32
};
void SwiGlu(const SwiGluArgs& args, const Stream& stream);

// x += y
struct AddArgs {
  TensorView x;  // in/out: [T, D] f32
  TensorView y;  // [T, D] f32
};
void AddInPlace(const AddArgs& args, const Stream& stream);

// out[i] = x[indices[i]]
struct GatherRowsArgs {
  TensorView x;        // [T, D] f32
  TensorView indices;  // [N] i32
  TensorView out;      // out: [N, D] f32
};
void GatherRows(const GatherRowsArgs& args, const Stream& stream);

}  // namespace nsa
