#include "kernels/transformer.h"

#include "kernels/backends.h"
#include "kernels/checks.h"

namespace nsa {
namespace {

void CheckPackedWeight(const PackedWeight& weight, const Stream& stream) {
  const DType dtype = weight.data.dtype();
  const int64_t num_bytes = stream.device == DeviceType::kCpu
                                ? PackedWeightBytes(weight.num_outputs, weight.num_inputs, dtype)
                                : weight.num_outputs * weight.num_inputs * DTypeBytes(dtype);
  NSA_CHECK_EQ(weight.data.num_bytes(), num_bytes);
}

}  // namespace

void Linear(const LinearArgs& args, const Stream& stream) {
  CheckPackedWeight(args.weight, stream);
  NSA_CHECK_SHAPE(args.x, {-1, args.weight.num_inputs});
  NSA_CHECK_SHAPE(args.out, {args.x.dim(0), args.weight.num_outputs});
  CheckActivation(args.x, stream, "x");
  if (args.out.dtype() != DType::kF32) CheckDType(args.out, args.x.dtype(), "out");
  if (stream.device == DeviceType::kCuda) CheckDType(args.weight.data, args.x.dtype(), "weight");
  NSA_DISPATCH(Linear, args, stream);
}

void EmbedTokens(const EmbedArgs& args, const Stream& stream) {
  CheckPackedWeight(args.weight, stream);
  NSA_CHECK_SHAPE(args.ids, {-1});
  NSA_CHECK_SHAPE(args.out, {args.ids.dim(0), args.weight.num_inputs});
  CheckDType(args.out, DType::kF32, "out");
  NSA_DISPATCH(EmbedTokens, args, stream);
}

void AddRmsNorm(const AddRmsNormArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.x, {-1, -1});
  NSA_CHECK_SHAPE(args.weight, {args.x.dim(1)});
  NSA_CHECK_SHAPE(args.out, {args.x.dim(0), args.x.dim(1)});
  CheckDType(args.x, DType::kF32, "x");
  CheckDType(args.weight, DType::kF32, "weight");
  CheckActivation(args.out, stream, "out");
  if (!args.y.empty()) {
    NSA_CHECK_SHAPE(args.y, {args.x.dim(0), args.x.dim(1)});
    CheckDType(args.y, args.out.dtype(), "y");
  }
  NSA_DISPATCH(AddRmsNorm, args, stream);
}

void SwiGlu(const SwiGluArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.out, {-1, -1});
  NSA_CHECK_SHAPE(args.gate_up, {args.out.dim(0), 2 * args.out.dim(1)});
  CheckActivation(args.gate_up, stream, "gate_up");
  CheckDType(args.out, args.gate_up.dtype(), "out");
  NSA_DISPATCH(SwiGlu, args, stream);
}

void GatherRows(const GatherRowsArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.x, {-1, -1});
  NSA_CHECK_SHAPE(args.indices, {-1});
  NSA_CHECK_SHAPE(args.out, {args.indices.dim(0), args.x.dim(1)});
  CheckActivation(args.x, stream, "x");
  CheckDType(args.out, args.x.dtype(), "out");
  NSA_DISPATCH(GatherRows, args, stream);
}

}  // namespace nsa
