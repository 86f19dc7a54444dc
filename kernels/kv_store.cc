#include "kernels/kv_store.h"

#include "kernels/backends.h"
#include "kernels/checks.h"

namespace nsa {
namespace {

void CheckColumns(const TensorView& packed, int64_t first, int64_t num_columns) {
  NSA_CHECK(first >= 0 && first + num_columns <= packed.dim(1))
      << "columns " << first << "+" << num_columns << " of " << packed.ToString();
}

void CheckKvStream(const StoreProjectionsArgs& args, const KvStream& kv_stream,
                   const Stream& stream) {
  const PagedKv& first = args.streams[0].kv;
  CheckPagedKv(kv_stream.kv, stream);
  NSA_CHECK(kv_stream.kv.num_kv_heads() == first.num_kv_heads() &&
            kv_stream.kv.d_k() == first.d_k() && kv_stream.kv.d_v() == first.d_v() &&
            kv_stream.kv.k.dtype() == first.k.dtype())
      << kv_stream.kv.k.ToString() << " against " << first.k.ToString();
  CheckColumns(args.packed, kv_stream.k_column, first.num_kv_heads() * first.d_k());
  CheckColumns(args.packed, kv_stream.v_column, first.num_kv_heads() * first.d_v());
}

}  // namespace

void CheckStoreProjections(const StoreProjectionsArgs& args, const Stream& stream) {
  CheckTokens(args.tokens);
  const int64_t num_tokens = args.tokens.num_tokens();
  NSA_CHECK(args.num_streams >= 1 && args.num_streams <= StoreProjectionsArgs::kMaxStreams)
      << args.num_streams << " streams";
  NSA_CHECK_SHAPE(args.packed, {num_tokens, -1});
  CheckActivation(args.packed, stream, "packed");
  for (int64_t i = 0; i < args.num_streams; ++i) CheckKvStream(args, args.streams[i], stream);
  const int64_t d_k = args.streams[0].kv.d_k();
  NSA_CHECK(d_k % 2 == 0) << "d_k " << d_k << " must be even";
  NSA_CHECK_SHAPE(args.inv_freq, {d_k / 2});
  NSA_CHECK_SHAPE(args.q, {num_tokens, -1, d_k});
  CheckDType(args.q, args.packed.dtype(), "q");
  CheckColumns(args.packed, args.q_column, args.q.dim(1) * d_k);
  if (!args.gate_logits.empty()) {
    NSA_CHECK_SHAPE(args.gate_logits, {num_tokens, args.q.dim(1), 3});
    CheckDType(args.gate_logits, DType::kF32, "gate_logits");
    CheckColumns(args.packed, args.gates_column, args.q.dim(1) * 3);
  }
}

void StoreProjections(const StoreProjectionsArgs& args, const Stream& stream) {
  CheckStoreProjections(args, stream);
  NSA_DISPATCH(StoreProjections, args, stream);
}

}  // namespace nsa
