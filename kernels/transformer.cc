#include "kernels/transformer.h"

#include "kernels/backends.h"
#include "kernels/checks.h"

namespace nsa {
namespace {

void CheckPackedWeight(const PackedWeight& weight) {
  NSA_CHECK_EQ(weight.data.num_bytes(),
               PackedWeightBytes(weight.num_outputs, weight.num_inputs, weight.data.dtype()));
}

}  // namespace

void Linear(const LinearArgs& args, const Stream& stream) {
  CheckPackedWeight(args.weight);
  NSA_CHECK_SHAPE(args.x, {-1, args.weight.num_inputs});
  NSA_CHECK_SHAPE(args.out, {args.x.dim(0), args.weight.num_outputs});
  NSA_DISPATCH(Linear, args, stream);
}

void EmbedTokens(const EmbedArgs& args, const Stream& stream) {
  CheckPackedWeight(args.weight);
  NSA_CHECK_SHAPE(args.ids, {-1});
  NSA_CHECK_SHAPE(args.out, {args.ids.dim(0), args.weight.num_inputs});
  NSA_DISPATCH(EmbedTokens, args, stream);
}

void RmsNorm(const RmsNormArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.x, {-1, -1});
  NSA_CHECK_SHAPE(args.weight, {args.x.dim(1)});
  NSA_CHECK_SHAPE(args.out, {args.x.dim(0), args.x.dim(1)});
  NSA_DISPATCH(RmsNorm, args, stream);
}

void ApplyRope(const RopeArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.x, {-1, -1, -1});
  NSA_CHECK_SHAPE(args.positions, {args.x.dim(0)});
  NSA_CHECK(args.x.dim(2) % 2 == 0 && args.x.dim(2) <= kMaxHeadDim)
      << args.x.ToString() << ": the head dim must be even and at most " << kMaxHeadDim;
  NSA_CHECK_SHAPE(args.inv_freq, {args.x.dim(2) / 2});
  NSA_DISPATCH(ApplyRope, args, stream);
}

void SwiGlu(const SwiGluArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.out, {-1, -1});
  NSA_CHECK_SHAPE(args.gate_up, {args.out.dim(0), 2 * args.out.dim(1)});
  NSA_DISPATCH(SwiGlu, args, stream);
}

void AddInPlace(const AddArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.x, {-1, -1});
  NSA_CHECK_SHAPE(args.y, {args.x.dim(0), args.x.dim(1)});
  NSA_DISPATCH(AddInPlace, args, stream);
}

void GatherRows(const GatherRowsArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.x, {-1, -1});
  NSA_CHECK_SHAPE(args.indices, {-1});
  NSA_CHECK_SHAPE(args.out, {args.indices.dim(0), args.x.dim(1)});
  NSA_DISPATCH(GatherRows, args, stream);
}

}  // namespace nsa
