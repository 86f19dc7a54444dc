// What a decode step writes to a layer's caches before it attends, behind plain C functions: the
// step's tokens, and the compressed rows whose spans they complete. Only enqueues work.

#include <cstdint>

#include "bench/kernels/gpu/sparse_call.h"
#include "kernels/cuda/context.h"
#include "kernels/nsa.h"

namespace nsa {

// Compressed rows come from an MLP and keys are rotated afterwards.
struct WritesCall {
  SparseCall sparse;
  CachePointers raw;  // of the compressed branch
  void* packed;       // [T, columns]: q, then K and V of sel, win and raw, then gates
  void* inv_freq;     // [d_k / 2] f32
  void* position_k;   // [KV heads, span_tokens, d_k] f32
  void* position_v;
  void* fc1_k;  // [KV heads, hidden, span_tokens * d_k]
  void* fc2_k;  // [KV heads, d_k, hidden]
  void* fc1_v;
  void* fc2_v;
  void* scratch;
  int64_t num_hidden, scratch_bytes;
  int64_t apart;  // by StoreProjections and CompressRows, not by AppendTokens
};

namespace {

TokenMap TokensOf(const SparseCall& c) {
  TokenMap tokens = ArgsOf(c).tokens;
  tokens.num_decode_tokens = c.num_tokens;
  return tokens;
}

CompressArgs CompressArgsOf(const WritesCall& call) {
  const SparseCall& c = call.sparse;
  const DType dtype = CallDType(c);
  const auto phi = [&](void* position, void* fc1, void* fc2, int64_t d) {
    return PhiWeights{.position = {position, DType::kF32, {c.num_kv_heads, c.span_tokens, d}},
                      .fc1 = {fc1, dtype, {c.num_kv_heads, call.num_hidden, c.span_tokens * d}},
                      .fc2 = {fc2, dtype, {c.num_kv_heads, d, call.num_hidden}}};
  };
  return {.shape = ArgsOf(c).shape,
          .phi = PhiKind::kMlp,
          .rope = CmpRope::kAfter,
          .tokens = TokensOf(c),
          .raw = PagedOf(c, call.raw),
          .rows = PagedOf(c, c.rows),
          .phi_k = phi(call.position_k, call.fc1_k, call.fc2_k, c.d_k),
          .phi_v = phi(call.position_v, call.fc1_v, call.fc2_v, c.d_v),
          .inv_freq = {call.inv_freq, DType::kF32, {c.d_k / 2}},
          .scratch = {call.scratch, DType::kU8, {call.scratch_bytes}}};
}

StoreProjectionsArgs StoreArgsOf(const WritesCall& call) {
  const SparseCall& c = call.sparse;
  const SparseAttentionArgs args = ArgsOf(c);
  const PagedKv raw = PagedOf(c, call.raw);
  const int64_t k_columns = c.num_kv_heads * c.d_k, v_columns = c.num_kv_heads * c.d_v;
  int64_t column = c.num_heads * c.d_k;
  StoreProjectionsArgs store{.tokens = TokensOf(c),
                             .inv_freq = {call.inv_freq, DType::kF32, {c.d_k / 2}},
                             .q = args.q,
                             .gate_logits = args.gate_logits};
  for (const PagedKv* kv : {&args.sel, &args.win, &raw}) {
    store.streams[store.num_streams++] = {
        .k_column = column, .v_column = column + k_columns, .rotate_k = kv != &raw, .kv = *kv};
    column += k_columns + v_columns;
  }
  store.gates_column = column;
  store.packed = {call.packed, CallDType(c), {c.num_tokens, column + c.num_heads * 3}};
  return store;
}

Stream StreamOf(void* context) {
  return {.device = DeviceType::kCuda, .cuda = static_cast<cuda::Context*>(context)};
}

}  // namespace

extern "C" {

// Of a call's scratch. `context`: of nsa_open.
int64_t nsa_append_scratch_bytes(void* context, const WritesCall* call) {
  const SparseCall& c = call->sparse;
  return CompressRowsScratchBytes({.shape = ArgsOf(c).shape,
                                   .phi = PhiKind::kMlp,
                                   .num_tokens = c.num_tokens,
                                   .num_seqs = c.num_seqs,
                                   .num_kv_heads = c.num_kv_heads,
                                   .d_k = c.d_k,
                                   .d_v = c.d_v,
                                   .num_hidden = call->num_hidden},
                                  StreamOf(context));
}

void nsa_append(void* context, const WritesCall* call) {
  const AppendArgs args{.store = StoreArgsOf(*call), .compress = CompressArgsOf(*call)};
  if (call->apart != 0) {
    StoreProjections(args.store, StreamOf(context));
    CompressRows(args.compress, StreamOf(context));
  } else {
    AppendTokens(args, StreamOf(context));
  }
}

}  // extern "C"

}  // namespace nsa
